"""`attune sweep --here`: what results.csv holds, which evaluations halving takes, and a run file that is another than it was.

    sweep_test.py BUILD_FOLDER
"""
import csv
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import RUN, Workplace, check, make_model, make_recipe

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


def another_run_file_is_noticed():
    sweep("edited", '[values]\n"strategy.rank" = [2, 4]\n')
    check("another run file" not in place.run(program, "sweep", "report", "edited.toml"), "the same run file")
    text = (place / "run.toml").read_text()
    (place / "run.toml").write_text(text.replace("[train]", "[slurm]\ncpus_per_task = 2\n[train]  # a comment"))
    check("another run file" not in place.run(program, "sweep", "report", "edited.toml"), "neither comments nor where it runs matter")
    (place / "run.toml").write_text(text.replace("seed = 3", "seed = 4"))
    words = "2 of 3 trials were run with another run file than run.toml is now; other values: seed;"
    said = sweep("edited", '[values]\n"strategy.rank" = [2, 4, 8]\n')
    check(said.count(words) == 2, f"it is told before and after: {said}")
    changes = {row["strategy.rank"]: row["run_file_changes"] for row in results("edited")}
    check(changes == {"2": "seed", "4": "seed", "8": ""}, f"the table says which: {changes}")
    for what in ("report", "status"):
        check(words in place.run(program, "sweep", what, "sweeps/edited"), f"so does {what}")
    (place / "run.toml").rename(place / "moved.toml")
    check("cannot be told: run.toml: " in place.run(program, "sweep", "report", "edited.toml"), "a run file that is gone is told")
    (place / "run.toml").write_text(text)


make_model(place / "model")
make_recipe(place)
(place / "run.toml").write_text(RUN.replace("steps = 6", f"steps = 20\n{STEADY}"))
place.run(program, "prepare", "sums.toml")
for test in (results_hold_every_number_of_the_trials_and_none_of_the_base, halving_evaluates_at_its_rungs_and_as_the_run_file_says, another_run_file_is_noticed):
    test()
    print(f"ok {test.__name__}", flush=True)
