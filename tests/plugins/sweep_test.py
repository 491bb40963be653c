"""`attune sweep --here`: what results.csv holds, which evaluations halving takes, a run file that is another than it was, and Ctrl-C.

    sweep_test.py BUILD_FOLDER
"""
import csv
import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import RUN, Workplace, check, make_model, make_recipe, paced

program = Path(sys.argv[1]).resolve() / "attune"
place = Workplace(Path(sys.argv[1]).resolve() / "tests" / "sweep-here")
STEADY = 'schedule = "constant"\nwarmup = 0.0\n'


def sweep(name, text, *arguments, **more):
    (place / f"{name}.toml").write_text(f'name = "{name}"\nrun = "run.toml"\nside_by_side = 2\n{text}')
    return place.run(program, "sweep", f"{name}.toml", "--here", *arguments, **more)


def results(name):
    with open(place / "sweeps" / name / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def events(name, trial, kind):
    lines = (place / "sweeps" / name / trial / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def results_hold_every_number_of_the_trials_and_none_of_the_base():
    """The middle trial is no longer finite after its first step: it was never evaluated, but for its base."""
    said = sweep("rates", 'retries = 0\n[values]\n"train.learning_rate" = [0.3, 1e30, 1.0]\n')
    table = results("rates")
    check([row["state"] for row in table] == ["done", "done", "failed"], f"what diverged comes last: {said}")
    check(table[2]["train.learning_rate"] == "1e+30", f"it is that of 1e30: {table}")
    check((table[2]["loss"], table[2]["perplexity"], table[2]["evaluated_step"]) == ("nan", "nan", ""), f"it has no result: {table[2]}")
    base = events("rates", table[2]["trial"], "run_begin")[0]["evaluation"]["loss"]
    check(not any(str(base) in row.values() for row in table), f"the base's loss, {base}, is no trial's: {table}")
    for row in table[:2]:
        last = events("rates", row["trial"], "evaluated")[-1]
        for metric, value in last["evaluation"].items():
            check(float(row[metric]) == value, f"{metric} to the last digit: {row[metric]}, {value}")
        begin = events("rates", row["trial"], "run_begin")[0]
        check(int(row["trainable_parameters"]) == begin["trainable_parameters"], f"parameters: {row}")
        check((row["seed"], row["steps"], row["evaluated_step"]) == ("3", "20", "20"), f"seed and steps of the run: {row}")
        check(float(row["seconds"]) == events("rates", row["trial"], "run_end")[-1]["seconds"], f"seconds in full: {row}")


def halving_evaluates_at_its_rungs_and_as_the_run_file_says():
    sweep("halved", '[halving]\nfirst = 2\nfactor = 3\n[values]\n"strategy.rank" = [2]\n"evaluate.every" = [0, 5]\n')
    evaluated = {row["evaluate.every"]: [event["step"] for event in events("halved", row["trial"], "evaluated")] for row in results("halved")}
    check(evaluated["0"] in ([2], [2, 6], [2, 6, 18], [2, 6, 18, 20]), f"at the rungs, and at the end: {evaluated}")
    check(evaluated["5"] in ([2], [2, 5, 6], [2, 5, 6, 10, 15, 18], [2, 5, 6, 10, 15, 18, 20]), f"as the run file says, too: {evaluated}")
    check(any(20 in steps for steps in evaluated.values()), f"one goes to its end: {evaluated}")
    said = sweep("late", '[halving]\nfirst = 20\n[values]\n"strategy.rank" = [2]\n', expect=2)
    check("halving.first is 20, but the trial has 20 steps" in said and not (place / "sweeps/late").exists(), f"a comparison that never comes is refused: {said}")


def another_run_file_is_noticed():
    sweep("edited", '[values]\n"strategy.rank" = [2, 4]\n')
    check("a different version of the run file" not in place.run(program, "sweep", "report", "edited.toml"), "the same run file")
    text = (place / "run.toml").read_text()
    (place / "run.toml").write_text(text.replace("[train]", "[slurm]\ncpus_per_task = 2\n[train]  # a comment"))
    check("a different version of the run file" not in place.run(program, "sweep", "report", "edited.toml"), "neither comments nor where it runs matter")
    (place / "run.toml").write_text(text.replace("seed = 3", "seed = 4"))
    words = "2 of 3 trials ran with a different version of the run file run.toml; different values: seed;"
    said = sweep("edited", '[values]\n"strategy.rank" = [2, 4, 8]\n')
    check(said.count(words) == 2, f"it is told before and after: {said}")
    changes = {row["strategy.rank"]: row["run_file_changes"] for row in results("edited")}
    check(changes == {"2": "seed", "4": "seed", "8": ""}, f"the table says which: {changes}")
    for what in ("report", "status"):
        check(words in place.run(program, "sweep", what, "sweeps/edited"), f"so does {what}")
    (place / "run.toml").rename(place / "moved.toml")
    check("a different run file: run.toml: " in place.run(program, "sweep", "report", "edited.toml"), "a run file that is gone is told")
    (place / "run.toml").write_text(text)


def begin_and_interrupt(name, is_time):
    """Ctrl-C, which every process in the foreground gets, as soon as is_time()."""
    process = place.start(program, "sweep", f"{name}.toml", "--here", start_new_session=True)
    end = time.monotonic() + 60
    while not is_time():
        check(process.poll() is None and time.monotonic() < end, f"the sweep {name} gets on: {process.stdout.read() if process.poll() is not None else ''}")
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    check(process.returncode == 75 and "interrupted; run the same command to continue" in said, f"it ends with 75, not {process.returncode}: {said}")
    return said


def ctrl_c_saves_what_trials_have_done(ranks):
    name, trials = f"stopped-{ranks}", ("rank=2", "rank=4")
    folder = place / "sweeps" / name
    run = (place / "run.toml").read_text().replace("steps = 20", "steps = 150") + f"[slurm]\ntasks_per_node = {ranks}\n"
    # A signal that a launcher loses, as it has just begun, comes again after two seconds.
    (place / f"{name}-run.toml").write_text(paced(run, sys.argv[1], 40, f"hurry-{ranks}"))
    (place / f"{name}.toml").write_text(f'name = "{name}"\nrun = "{name}-run.toml"\nside_by_side = 2\n[values]\n"strategy.rank" = [2, 4, 8]\n')
    steps = lambda trial: [event["step"] for event in events(name, trial, "step_end")] if (folder / trial / "metrics.jsonl").exists() else []
    said = begin_and_interrupt(name, lambda: (folder / "rank=2/trial.log").exists())
    check("interrupted" in said and "failed" not in said, f"a launcher that has just begun is no failure: {said}")
    done = {trial: len(steps(trial)) for trial in trials}  # the launchers may have come that far
    said = begin_and_interrupt(name, lambda: all(len(steps(trial)) >= done[trial] + 3 for trial in trials))
    check(said.count("interrupted, its state is saved") == 2, f"two trials are saved, and the third does not begin: {said}")
    for trial in trials:
        last = json.loads((folder / trial / "record.json").read_text())["history"][-1]
        check((last["what"], last["step"]) == ("interrupted", steps(trial)[-1]), f"{trial} has lost no step: {last}")
    (place / f"hurry-{ranks}").touch()
    said = place.run(program, "sweep", f"{name}.toml", "--here", timeout=300)
    check("3 done" in said, f"the same command goes on: {said}")
    for trial in (*trials, "rank=8"):
        check(steps(trial) == list(range(1, 151)), f"{trial} took every step once: {steps(trial)}")


make_model(place / "model")
make_recipe(place)
(place / "run.toml").write_text(RUN.replace("steps = 6", f"steps = 20\n{STEADY}"))
place.run(program, "prepare", "sums.toml")
for test in (results_hold_every_number_of_the_trials_and_none_of_the_base, halving_evaluates_at_its_rungs_and_as_the_run_file_says, another_run_file_is_noticed):
    test()
    print(f"ok {test.__name__}", flush=True)
for ranks in (1, 2):
    ctrl_c_saves_what_trials_have_done(ranks)
    print(f"ok ctrl_c_saves_what_trials_have_done on {ranks} ranks", flush=True)
