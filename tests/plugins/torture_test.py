"""A run that is killed again and again ends with the weights of a run that was left alone, to the last bit.

    torture_test.py BUILD_FOLDER KILLS

Two ranks, 200 steps (30 for a few kills), a checkpoint every other step: SIGKILL to one rank, SIGKILL to all, SIGTERM to one or all, at random moments, many of
them within a save. After each, every published checkpoint must be readable.
"""
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import RUN, Workplace, check, make_model, make_recipe, over_ranks, ranks_of

build, kills = Path(sys.argv[1]).resolve(), int(sys.argv[2])
program = build / "attune"
place = Workplace(build / "tests" / f"torture-{kills}")
OPTIONS = (f"train.steps={200 if kills >= 100 else 30}", "train.global_batch=32", "train.micro_batch=1", "checkpoint.every=2", "checkpoint.keep=3", "evaluate.every=25", "strategy.dropout=0.1")
RESUME = ("name=tortured", *OPTIONS, "--resume")
random.seed(int(os.environ.get("TORTURE_SEED", "1")))


def is_saving():
    return any(path.name.endswith(".tmp") for path in (place / "runs/tortured/checkpoints").glob(".*"))


def wait_for_a_moment(process, saving):
    """Until the ranks run and some steps are done; then a little longer, or until a save is under way."""
    before, end = place.steps_done("tortured"), time.monotonic() + 60
    while process.poll() is None and (len(ranks_of(process)) < 2 or place.steps_done("tortured") <= before):
        check(time.monotonic() < end, "the run gets going within a minute")
        time.sleep(0.002)
    pause = time.monotonic() + random.uniform(0, 0.1)
    while process.poll() is None and time.monotonic() < (pause + 1 if saving else pause) and not (saving and is_saving()):
        time.sleep(0.0005)


def strike(process, how):
    ranks = ranks_of(process)
    victims = ranks if how.endswith("all") else ranks[-1:]
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL if how.startswith("kill") else signal.SIGTERM)
        except ProcessLookupError:
            pass


def check_published():
    import h5py
    for checkpoint in (place / "runs/tortured/checkpoints").glob("step-*"):
        check((checkpoint / "COMPLETE").exists(), f"{checkpoint} is whole")
        for part in checkpoint.glob("state-*.h5"):
            with h5py.File(part) as file:
                check(file.attrs["version"] == 2, f"{part} is readable")


make_model(place / "model")
make_recipe(place)
(place / "run.toml").write_text(RUN)
place.run(program, "prepare", "sums.toml")
place.run(*over_ranks(2, program, "train", "run.toml", "name=undisturbed", *OPTIONS))

struck, within_a_save, finished = {}, 0, False
started = time.monotonic()
while sum(struck.values()) < kills and not finished:
    process = place.start(*map(str, over_ranks(2, program, "train", "run.toml", *RESUME)))
    how = random.choice(["kill one", "kill all", "terminate one", "terminate all"])
    wait_for_a_moment(process, saving=random.random() < 0.5)
    saving = is_saving()
    strike(process, how)
    said, _ = process.communicate(timeout=60)
    finished = process.returncode == 0
    if not finished:
        check(process.returncode == 75 or how.startswith("kill"), f"exit code 75 after SIGTERM, not {process.returncode}: {said}")
        check(process.returncode != 2 and "internal error" not in said, f"no mistake and no bug: {said}")
        struck[how] = struck.get(how, 0) + 1
        within_a_save += saving
    check_published()
place.run(*over_ranks(2, program, "train", "run.toml", *RESUME))
ours, theirs = ((place / f"runs/{run}/adapter/adapter_model.safetensors").read_bytes() for run in ("tortured", "undisturbed"))
check(ours == theirs, "the same adapter to the last bit")
losses = [[(step["step"], step["loss"]) for step in place.events(run, "step_end")] for run in ("tortured", "undisturbed")]
check(losses[0] == losses[1], "the same losses, each step once")
print(f"ok: interrupted {sum(struck.values())} times ({struck}; {within_a_save} within a save) over {len(losses[0])} steps in {time.monotonic() - started:.0f} s")
