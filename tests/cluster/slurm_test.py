"""The job-script templates on a real Slurm cluster of virtual nodes: they train what mpirun trains, and survive what Slurm does to them.

    slurm_test.py BUILD_FOLDER [netns|plain]
"""
import hashlib
import json
import signal
import sys
import time
from pathlib import Path

source = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(source / "tests/support"))
from tiny import RUN, Workplace, check, environment, make_model, make_recipe, over_ranks

build = Path(sys.argv[1]).resolve()
mode = ["--mode", sys.argv[2]] if len(sys.argv) > 2 else []
place = Workplace(build / "tests" / "cluster")
testcluster = source / "slurm/testcluster"
# One folder for a build folder: a cluster that an aborted test left is found and stopped.
folder = Path("/tmp/attune-test-" + hashlib.sha256(str(build).encode()).hexdigest()[:8])
environment |= {"ATTUNE_CLUSTER": str(folder), "PATH": f"{build}:{environment['PATH']}"}
settings = ["train.steps=300", "train.schedule=constant", "checkpoint.every=100"]
final = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}


def slurm(*command):
    return place.run("bash", "-c", 'source "$0" && exec "$@"', testcluster / "env.sh", *command)


def submit(template, name, *options):
    said = slurm("sbatch", "--parsable", "--cpus-per-task=1", *options, source / f"slurm/templates/{template}.sbatch", "run.toml", f"name={name}", *settings)
    return said.split()[-1]


def job(number):
    return dict(pair.split("=", 1) for pair in slurm("scontrol", "-o", "show", "job", number).split() if "=" in pair)


def log(number):
    path = place / f"attune-{number}.log"
    return path.read_text() if path.exists() else ""


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not (value := condition()):
        check(time.monotonic() < end, f"{what} within {seconds} s")
        time.sleep(0.1)
    return value


def wait_for_end(number):
    def ended():
        now = job(number)
        return now if now["JobState"] in final else None
    now = wait_for(ended, f"job {number} ends; its log:\n{log(number)}")
    check(now["JobState"] == "COMPLETED", f"job {number} completes, and is not {now['JobState']}:\n{log(number)}")
    return now


def wait_for_steps(number, name):
    metrics = place / f"runs/{name}/metrics.jsonl"
    wait_for(lambda: metrics.exists() and metrics.read_text().count("step_end") >= 5, f"job {number} gets going; its log:\n{log(number)}")


def check_result(name):
    """To the last bit what the same ranks give without Slurm, interrupted or not."""
    ours, theirs = ([(step["step"], step["loss"], step["grad_norm"]) for step in place.events(run, "step_end")] for run in (name, "reference"))
    check(ours == theirs, f"the losses of {name} are those of mpirun")
    adapters = [(place / f"runs/{run}/adapter/adapter_model.safetensors").read_bytes() for run in (name, "reference")]
    check(adapters[0] == adapters[1], f"the adapter of {name} is that of mpirun")
    record = json.loads((place / f"runs/{name}/record.json").read_text())
    check(record["ranks"] == 2 and "slurm_job" in record, f"{name} ran on two ranks under Slurm: {record}")


def check_interrupted_once(number, name):
    now = wait_for_end(number)
    check(now["Restarts"] == "1", f"job {number} is requeued once, not {now['Restarts']} times:\n{log(number)}")
    said = log(number)
    check(said.count("interrupted at step") == 1 and said.count("resumed from") == 1, f"{name} saves its state and resumes:\n{said}")
    check_result(name)


def srun_trains_what_mpirun_trains():
    wait_for_end(submit("srun", "srun"))
    check_result("srun")


def mpirun_trains_what_it_trains_without_slurm():
    wait_for_end(submit("mpirun", "mpirun"))
    check_result("mpirun")


def a_signal_to_the_step_saves_requeues_and_resumes():
    number = submit("srun", "srun-signalled")
    wait_for_steps(number, "srun-signalled")
    slurm("scancel", "--signal=TERM", number)
    check_interrupted_once(number, "srun-signalled")


def a_signal_to_the_script_saves_requeues_and_resumes_under_mpirun():
    number = submit("mpirun", "mpirun-signalled")
    wait_for_steps(number, "mpirun-signalled")
    slurm("scancel", "--batch", "--signal=USR1", number)
    check_interrupted_once(number, "mpirun-signalled")


def a_job_of_higher_priority_saves_requeues_and_resumes():
    number = submit("srun", "preempted")
    wait_for_steps(number, "preempted")
    urgent = slurm("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--output=urgent.log", "--wrap=sleep 1").split()[-1]
    check_interrupted_once(number, "preempted")
    wait_for_end(urgent)


def everything_is_gone(bridge):
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"ATTUNE_CLUSTER={folder}\0".encode() in (process / "environ").read_bytes():
                left.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            pass  # it ended just now
    left += [str(path) for pattern in (f"{folder.name}*", "ompi.n[0-9].*", "spmix_appdir_*") for path in Path("/tmp").glob(pattern)]
    left += [str(path) for path in Path("/sys/class/net").glob(f"{bridge}*")]
    check(not left, f"the cluster leaves nothing behind, but {left}")


make_model(place / "model")
make_recipe(place)
(place / "run.toml").write_text(RUN)
place.run("attune", "prepare", "sums.toml")
place.run(*over_ranks(2, build / "attune", "train", "run.toml", "name=reference", *settings))

signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the cluster is stopped as well
place.run(testcluster / "down")
try:
    print(place.run(testcluster / "up", "--nodes", "2", *mode), flush=True)
    bridge = dict(line.split("=", 1) for line in (folder / "settings").read_text().split())["bridge"]
    for test in (srun_trains_what_mpirun_trains, mpirun_trains_what_it_trains_without_slurm, a_signal_to_the_step_saves_requeues_and_resumes,
                 a_signal_to_the_script_saves_requeues_and_resumes_under_mpirun, a_job_of_higher_priority_saves_requeues_and_resumes):
        started = time.monotonic()
        test()
        print(f"ok {test.__name__} ({time.monotonic() - started:.1f} s)", flush=True)
finally:
    place.run(testcluster / "down")
everything_is_gone(bridge)
