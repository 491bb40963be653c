"""The job-script templates on a real Slurm cluster of virtual nodes: they train what mpirun trains, and survive what Slurm does to them.

    slurm_test.py BUILD_FOLDER
"""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from tiny import RUN, Workplace, check, make_model, make_recipe, over_ranks, paced
from cluster import Cluster, adapter, run_tests, source

build = Path(sys.argv[1]).resolve()
place = Workplace(build / "tests" / "cluster")
cluster = Cluster(build, place, "--nodes", "2")
settings = ["train.steps=300", "train.schedule=constant", "checkpoint.every=100"]


def submit(template, name, *options):
    said = cluster.run("sbatch", "--parsable", "--cpus-per-task=1", *options, source / f"slurm/templates/{template}.sbatch", "run.toml", f"name={name}", *settings)
    return said.split()[-1]


def check_result(name):
    """To the last bit what the same ranks give without Slurm, interrupted or not."""
    ours, theirs = ([(step["step"], step["loss"], step["grad_norm"]) for step in place.events(run, "step_end")] for run in (name, "reference"))
    check(ours == theirs, f"the losses of {name} are those of mpirun")
    check(adapter(place, name) == adapter(place, "reference"), f"the adapter of {name} is that of mpirun")
    record = json.loads((place / f"runs/{name}/record.json").read_text())
    check(record["ranks"] == 2 and "slurm_job" in record, f"{name} ran on two ranks under Slurm: {record}")


def check_interrupted_once(number, name):
    now = cluster.wait_for_end(number)
    check(now["Restarts"] == "1", f"job {number} is requeued once, not {now['Restarts']} times:\n{cluster.log(number)}")
    said = cluster.log(number)
    check(said.count("interrupted at step") == 1 and said.count("resumed from") == 1, f"{name} saves its state and resumes:\n{said}")
    check_result(name)


def doctor_tells_of_every_node():
    said = cluster.run("srun", "--mpi=pmix", "--nodes=2", "--ntasks=2", "attune", "doctor")
    check("started: 2 ranks, srun, job " in said and "ob1: self, tcp" in said and " us  " in said, f"how it was started, what moves the messages, and how fast: {said}")
    nodes = [line for line in said.splitlines() if "ob1: " in line]
    check(len(nodes) == (2 if cluster.settings["mode"] == "netns" else 1), f"a row for every host: {said}")


def srun_trains_what_mpirun_trains():
    cluster.wait_for_end(submit("srun", "srun"))
    check_result("srun")


def mpirun_trains_what_it_trains_without_slurm():
    cluster.wait_for_end(submit("mpirun", "mpirun"))
    check_result("mpirun")


def a_signal_to_the_step_saves_requeues_and_resumes():
    number = submit("srun", "srun-signalled")
    cluster.wait_for_steps(number, "srun-signalled")
    cluster.run("scancel", "--signal=TERM", number)
    check_interrupted_once(number, "srun-signalled")


def a_signal_to_the_script_saves_requeues_and_resumes_under_mpirun():
    number = submit("mpirun", "mpirun-signalled")
    cluster.wait_for_steps(number, "mpirun-signalled")
    cluster.run("scancel", "--batch", "--signal=USR1", number)
    check_interrupted_once(number, "mpirun-signalled")


def a_job_of_higher_priority_saves_requeues_and_resumes():
    number = submit("srun", "preempted")
    cluster.wait_for_steps(number, "preempted")
    urgent = cluster.run("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--output=urgent.log", "--wrap=sleep 1").split()[-1]
    check_interrupted_once(number, "preempted")
    cluster.wait_for_end(urgent)


def the_program_runs_from_the_nodes_own_disks_when_the_site_says_so():
    own_disks = cluster.settings["mode"] == "netns"  # else all nodes are one host, and have one
    scratch = "/dev/shm" if own_disks else f"{place.folder}/scratch"
    (place / "staging.toml").write_text(f'scratch = "{scratch}/$SLURM_JOB_ID"\nstage = ["program"]\n')
    ranks = ("slurm.nodes=2",) if own_disks else ("slurm.tasks_per_node=2",)
    said = cluster.run("attune", "submit", "run.toml", "name=staged", *settings, *ranks, "--site", "./staging.toml")
    number = said.split()[1]
    cluster.wait_for_end(number)
    check_result("staged")
    record = json.loads((place / "runs/staged/record.json").read_text())
    staged = [plugin for plugin in record["plugins"] if "fixture" not in plugin["name"]]
    check(all(plugin["file"].startswith(f"{scratch}/{number}/attune-{number}/plugins/") for plugin in staged), f"it runs from there: {record['plugins']}")
    left = cluster.run("srun", "--nodes=2", "--ntasks=2", "find", scratch, "-name", f"attune-{number}*")
    check(left.strip() == "", f"and is removed: {left}")


def what_is_frozen_is_kept_on_the_nodes_own_disks():
    own_disks = cluster.settings["mode"] == "netns"
    folder = "/dev/shm/kept" if own_disks else f"{place.folder}/kept"
    frozen = ['strategy.targets=["layers.1.*"]', "train.prefix_cache=float32", "train.steps=30", "train.schedule=constant"]
    place.run(*over_ranks(2, build / "attune", "train", "run.toml", "name=kept-reference", *frozen))
    cluster.run("srun", "--mpi=pmix", "--nodes=2", "--ntasks=2", "attune", "train", "run.toml", "name=kept", *frozen, f"train.prefix_folder={folder}")
    ours, theirs = ([step["loss"] for step in place.events(run, "step_end")] for run in ("kept", "kept-reference"))
    check(ours == theirs and len(ours) == 30, "the losses are those of one machine, to the last bit")
    files = cluster.run("srun", "--nodes=2", "--ntasks=2", "find", folder, "-type", "f")
    check(len(files.split()) == 2 and len(set(files.split())) == 1, f"both nodes find the one file, and nothing else: {files}")
    cluster.run("srun", "--nodes=2", "--ntasks=2", "rm", "-rf", folder)


make_model(place / "model")
make_recipe(place)
(place / "run.toml").write_text(paced(RUN, build, 10))
place.run("attune", "prepare", "sums.toml")
place.run(*over_ranks(2, build / "attune", "train", "run.toml", "name=reference", *settings))

with cluster:
    run_tests(doctor_tells_of_every_node, srun_trains_what_mpirun_trains, mpirun_trains_what_it_trains_without_slurm, a_signal_to_the_step_saves_requeues_and_resumes,
              a_signal_to_the_script_saves_requeues_and_resumes_under_mpirun, a_job_of_higher_priority_saves_requeues_and_resumes,
              the_program_runs_from_the_nodes_own_disks_when_the_site_says_so, what_is_frozen_is_kept_on_the_nodes_own_disks)
