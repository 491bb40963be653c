"""Which cores a run uses, as its first line, its record and its notes say, however its ranks are started.

    placement_test.py BUILD_FOLDER
"""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from tiny import RUN, Workplace, check, make_model, make_recipe

build = Path(sys.argv[1]).resolve()
place = Workplace(build / "tests" / "placement")
attune = build / "attune"

# The oracle: util-linux's view of the machine.
pairs = subprocess.run(["lscpu", "--parse=CPU,CORE"], capture_output=True, text=True, check=True).stdout.splitlines()
core_of = dict(map(int, line.split(",")) for line in pairs if not line.startswith("#"))
cores = len({core_of[processor] for processor in os.sched_getaffinity(0)})


def run(*command, threads=None, **more):
    return place.run("env", *(["-u", "OMP_NUM_THREADS"] if threads is None else [f"OMP_NUM_THREADS={threads}"]), *command, **more)


def uses(said):
    return next(line.split(": ")[1] for line in said.splitlines() if line.startswith("a run here uses"))


def line(ranks, threads, busy, of=cores):
    many = lambda count, what: f"{count} {what}{'' if count == 1 else 's'}"
    return f"{many(ranks, 'rank')} x {many(threads, 'thread')} on 1 node, {busy} of {many(of, 'core')}"


# ---- Every way of starting it
for start, ranks, threads in (
    ([], 1, cores),
    (["mpirun", "-n", 1], 1, cores),
    (["mpirun", "-n", 1, "--bind-to", "none"], 1, cores),
    (["mpirun", "-n", 1, "bash", "-c", '"$0" "$@"; exit'], 1, cores),
    (["mpirun", "--oversubscribe", "-n", 2 * cores], 2 * cores, 1),
    *([(["mpirun", "-n", 2], 2, cores // 2), (["mpirun", "-n", 2, "--bind-to", "none"], 2, cores // 2)] if cores % 2 == 0 else []),
):
    said = run(*start, attune, "doctor")
    check(uses(said) == line(ranks, threads, cores), f"{start}: {uses(said)}")
    check("idle" not in said and "processor(s)" not in said, f"{start}: nothing to remark: {said}")

last = max(os.sched_getaffinity(0))
said = run("taskset", "-c", last, attune, "doctor")
check(uses(said) == line(1, 1, 1, of=1), f"one core belongs to the run: {uses(said)}")
said = run("mpirun", "-n", 1, "--bind-to", "core", attune, "doctor")
check(uses(said) == line(1, 1, 1), f"a binding that was asked for is kept: {uses(said)}")
check(("cores are idle: give srun --cpus-per-task=" in said) == (cores > 1), f"and idle cores are told: {said}")

# ---- A run
make_model(place / "model")
make_recipe(place)
run(attune, "prepare", "sums.toml")
(place / "run.toml").write_text(RUN)


def train(name, *overrides, start=("mpirun", "-n", 1), **more):
    said = run(*start, attune, "train", "run.toml", f"name={name}", "train.steps=2", *overrides, **more)
    rank, = json.loads((place / "runs" / name / "record.json").read_text())["placement"]
    return said, rank


def processors(rank):
    spans = [span.split("-") for span in rank["processors"].split(",")]
    return sum(int(span[-1]) - int(span[0]) + 1 for span in spans)


said, rank = train("spread")
check(said.splitlines()[0] == line(1, cores, cores), f"the first line of a run: {said}")
check(rank["threads"] == cores and processors(rank) == len(os.sched_getaffinity(0)), f"it computes there: {rank}")
said, rank = train("kept", "parallel.binding=keep")
check(line(1, 1, 1) in said and rank["threads"] == 1, f"parallel.binding = keep: {said} {rank}")
check(len({core_of[int(p)] for p in rank["processors"].replace("-", ",").split(",")}) == 1, f"on one core: {rank}")
said, rank = train("threads", "parallel.threads=1", threads=3)
check(line(1, 1, 1) in said and rank["threads"] == 1, f"parallel.threads counts before OMP_NUM_THREADS: {said} {rank}")
check("note:" not in said, f"what was chosen is not remarked upon: {said}")
said, rank = train("variable", threads=1)
check(line(1, 1, 1) in said and rank["threads"] == 1 and "note:" not in said, f"OMP_NUM_THREADS: {said} {rank}")
said, rank = train("crowded", "parallel.threads=99", "parallel.binding=keep")
check("a rank computes with 99 threads on" in said and rank["threads"] == 99, f"too many are told: {said}")
said, rank = train("alone", start=())
check(line(1, cores, cores) in said and rank["threads"] == cores, f"without mpirun: {said} {rank}")

# ---- The other commands
said = run("mpirun", "-n", 1, attune, "evaluate", "runs/spread", threads=99)
check("99 threads on" in said, f"evaluate looks where it computes: {said}")
said = run("mpirun", "-n", 1, attune, "generate", "model", "--prompt", "What", "--max-tokens", 2, threads=99)
check("99 threads on" in said, f"generate too: {said}")
said = run("mpirun", "-n", 1, attune, "check", "run.toml", "parallel.threads=99", "--measure")
check("99 threads on" in said, f"and check: {said}")

# ---- Beside others
def beside_others(name, **variables):
    """What a run says beside as many busy processes as there are cores."""
    log = place / f"{name}.log"
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        started = [str(part) for part in (attune, "train", "run.toml", f"name={name}", "train.steps=1000000", "checkpoint.every=0", "evaluate.samples=1")]
        quiet = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
        with log.open("w") as out:
            process = subprocess.Popen(started, cwd=place.folder, env=quiet | variables, stdout=out, stderr=subprocess.STDOUT)
        end = time.monotonic() + 60
        while "note:" not in log.read_text() and place.steps_done(name) < (200 if variables else 100000) and time.monotonic() < end:
            time.sleep(0.1)
        process.terminate()
        check(process.wait(timeout=60) == 75, f"{name}: {log.read_text()}")
    finally:
        for one in busy:
            one.kill()
    return log.read_text()


if cores > 1:
    said = beside_others("beside")
    check(said.count("other processes use this run's processors") == 1, f"its threads are patient, which is told: {said}")
    said = beside_others("chosen", OMP_WAIT_POLICY="passive")
    check("other processes" not in said, f"who has chosen is not overruled: {said}")
busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
said = run(attune, "doctor")
busy.kill()
check("other processes keep" in said and f"({busy.pid}, " in said, f"doctor names who is busy: {said}")

# ---- Trials side by side share the cores
for name, at_once, more, threads in (("one", 1, "", cores), ("each", cores, "", 1), ("given", 1, "[slurm]\ncpus_per_task = 1\n", 1)):
    (place / "run.toml").write_text(RUN.replace("steps = 6", "steps = 1") + more)
    (place / f"{name}.toml").write_text(f'name = "{name}"\nrun = "run.toml"\nside_by_side = {at_once}\n[values]\n"strategy.rank" = [2, 4]\n')
    run(attune, "sweep", f"{name}.toml", "--here")
    records = [json.loads(file.read_text()) for file in (place / "sweeps" / name).glob("*/record.json")]
    check([record["placement"][0]["threads"] for record in records] == [threads, threads], f"{at_once} at a time: {records}")
print("ok")
