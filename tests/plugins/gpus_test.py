"""GPUs of a job: what the run would refuse is refused at submission, and a job that has GPUs does not train on the CPU without a word.

    gpus_test.py BUILD_FOLDER

No GPU is needed: CUDA_VISIBLE_DEVICES hides those that this machine may have.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from tiny import RUN, Workplace, check, environment, make_model, make_recipe

build = Path(sys.argv[1]).resolve()
place = Workplace(build / "tests" / "gpus")
attune = build / "attune"


def one_sentence(said, words):
    check(words in said and said.strip().count("\n") == 0, f"'{words}' in one sentence: {said}")


def a_run_for_a_gpu_is_submitted_from_a_machine_without_one():
    script = place.run(attune, "submit", "run.toml", "--print", "parallel.device=cuda", "slurm.gpus_per_node=1")
    check("#SBATCH --gpus-per-node=1\n" in script, f"as it is asked for: {script}")
    is_for_cpus = "for CPUs" in place.run(attune, "--version")
    check(("note: the job requests GPUs" in script and "but this attune's LibTorch was built for CPUs" in script) == is_for_cpus, f"what the job would run with: {script}")
    if is_for_cpus:
        for command in (("submit", "run.toml", "name=refused", "slurm.gpus_per_node=1"), ("train", "run.toml", "name=refused", "parallel.device=cuda")):
            said = place.run(attune, *command, expect=2)
            check("LibTorch was built for CPUs" in said and "launchers/setup --cuda" in said, f"{command}: {said}")
        check(not (place / "runs/refused").exists(), "before anything is written")
    check('device = "cuda"' in (place / "runs/run/run.toml").read_text(), "the job's run file has the device")
    script = place.run(attune, "submit", "run.toml", "--print", "parallel.device=cuda", "train.precision=bfloat16")
    check("the job requests no GPU: set slurm.gpus_per_node = 1," in script and "no bfloat16 instructions (AVX512" not in script, f"what may be forgotten is a note: {script}")
    script = place.run(attune, "sweep", "grid.toml", "--print")
    check("#SBATCH --gpus-per-node=1\n" in script, f"trials of a sweep as well: {script}")


SEVERAL = {
    ("slurm.gpus_per_node=2", "slurm.tasks_per_node=2"): ("--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=2"),
    ("slurm.gpus_per_node=1", "slurm.nodes=2", "parallel.device=cuda"): ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1"),
    ("slurm.gpus_per_node=2", "slurm.tasks_per_node=2", "slurm.launcher=mpirun"): ("--gpus-per-node=2",),
    ("slurm.gpus_per_node=2", "slurm.tasks_per_node=2", "slurm.gpu_type=a100"): ("--gpus-per-node=a100:2",),
    ("slurm.gpus_per_node=2", "slurm.tasks_per_node=2", 'slurm.options={ "gpu-bind" = "closest" }'): ("--gpus-per-node=2", "--gpu-bind=closest"),
}


def several_ranks_on_gpus_are_submitted_with_all_gpus_of_a_node_in_sight():
    for settings, options in SEVERAL.items():
        script = place.run(attune, "submit", "run.toml", "--print", *settings)
        for option in options:
            check(f"#SBATCH {option}\n" in script, f"{settings}: {option} in {script}")
        check(("unset \"${!SLURM_GPU_BIND@}\"" in script) != ("gpu-bind" in script), f"{settings}: bound by the user, or not at all: {script}")
    check("GPU_BIND" not in place.run(attune, "submit", "run.toml", "--print", "slurm.tasks_per_node=2"), "a job without GPUs has none of this")
    script = place.run(attune, "submit", "run.toml", "--print", "parallel.device=cuda", "slurm.tasks_per_node=2")
    check("the job requests no GPU: set slurm.gpus_per_node = 2," in script, f"one for each rank of a node: {script}")


REFUSED = {
    ("parallel.device=cpu", "slurm.gpus_per_node=1"): 'slurm.gpus_per_node is 1, but parallel.device = "cpu" would leave the GPUs idle',
    ("slurm.gpus_per_node=2",): "each rank uses one GPU, so set tasks_per_node = 2",
    ("slurm.gpus_per_node=1", "slurm.array=0-1", "slurm.each={ \"parallel.device\" = \"cpu\", seed = \"$SLURM_ARRAY_TASK_ID\" }"): "element 0 of the array: slurm.gpus_per_node is 1",
    ('slurm.options={ "gpus-per-socket" = "1" }',): "use gpus_per_node of [slurm]",
    ('slurm.options={ "tres-per-task" = "gres/gpu:1" }',): "GPUs are set in 'tres-per-task' of 'options'",
}


def what_the_run_would_refuse_is_refused_at_submission():
    for settings, words in REFUSED.items():
        one_sentence(place.run(attune, "submit", "run.toml", "name=refused", "--print", *settings, expect=2), words)
    check(not (place / "runs/refused").exists(), "and nothing is written")
    (place / "both.toml").write_text('name = "both"\nrun = "gpu.toml"\n[values]\n"parallel.device" = ["cuda", "cpu"]\n')
    one_sentence(place.run(attune, "sweep", "both.toml", "--print", expect=2), 'parallel.device = "cpu" would leave the GPUs idle')


JOB = ("env", "CUDA_VISIBLE_DEVICES=", "SLURM_JOB_ID=5")


def a_job_with_gpus_that_uses_none_fails():
    for variable in ("SLURM_JOB_GPUS=0", "SLURM_GPUS_ON_NODE=1", "SLURM_GPUS_PER_TASK=1"):
        said = place.run(*JOB, variable, attune, "train", "run.toml", "name=idle", expect=2)
        one_sentence(said, f"the job has GPUs ({variable}), but this LibTorch finds none")
        check(not (place / "runs/idle").exists(), "before anything is written")
    said = place.run(*JOB, "SLURM_GPUS_ON_NODE=1", attune, "train", "run.toml", "name=meant", "parallel.device=cpu")
    check('note: the job has GPUs (SLURM_GPUS_ON_NODE=1), but parallel.device = "cpu" leaves them idle' in said, f"what is meant is done, with a note: {said}")
    check("the job has GPUs" not in place.run(*JOB, "SLURM_GPUS_ON_NODE=0", attune, "train", "run.toml", "name=none"), "a job without GPUs trains")
    for command in (("evaluate", "runs/none"), ("generate", "runs/none", "--prompt", "1"), ("check", "run.toml", "--here"), ("doctor",)):
        said = place.run(*JOB, "SLURM_JOB_GPUS=0", attune, *command, expect=2)
        check("the job has GPUs (SLURM_JOB_GPUS=0)" in said, f"{command[0]}: {said}")


make_model(place / "model")
make_recipe(place)
(place / "run.toml").write_text(RUN)
(place / "gpu.toml").write_text(RUN + "[slurm]\ngpus_per_node = 1\n")
(place / "grid.toml").write_text('name = "grid"\nrun = "gpu.toml"\n[values]\n"parallel.device" = ["auto", "cuda"]\n')
place.run(attune, "prepare", "sums.toml")
for test in (a_run_for_a_gpu_is_submitted_from_a_machine_without_one, several_ranks_on_gpus_are_submitted_with_all_gpus_of_a_node_in_sight, what_the_run_would_refuse_is_refused_at_submission, a_job_with_gpus_that_uses_none_fails):
    test()
    print(f"ok {test.__name__}", flush=True)
