"""Metrics that a plugin declares reach keep_best, early_stopping, halving, sweeps, tables and files; a metric that a run does not measure is refused
before anything is trained or queued; strategies' scalars are the same on any number of ranks.

    metrics_test.py BUILD_FOLDER
"""
import csv
import json
import math
import os
import sys
from pathlib import Path

import h5py

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import RUN, Workplace, check, environment, make_classifier, make_model, make_recipe, over_ranks, write_labelled, write_answers

build = Path(sys.argv[1]).resolve()
program = build / "attune"
place = Workplace(build / "tests" / "metrics")
environment["ATTUNE_PLUGINS"] = str(build / "tests/fixtures/exact_match_fixture.so")


def strict(text):
    """JSON as RFC 8259 has it: without NaN and Infinity."""
    def refuse(constant):
        sys.exit(f"does not hold: valid JSON, but there is {constant}")
    return json.loads(text, parse_constant=refuse)


def events(run, kind, folder="runs"):
    lines = (place / folder / run / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(strict, lines) if event["event"] == kind]


def refused(command, *arguments, says):
    before = {path for path in place.folder.rglob("*")}
    said = place.run(program, command, *arguments, expect=2)
    for words in says:
        check(words in said, f"{command} {arguments} says '{words}': {said}")
    check([line.startswith("attune: ") for line in said.strip().splitlines()].count(True) == 1 and said.strip().splitlines()[-1].startswith("attune: "), f"in one sentence: {said}")
    made = [path for path in place.folder.rglob("*") if path not in before]
    check(not made, f"{command} {arguments} makes nothing: {made}")


def a_plugins_own_metric_reaches_everything():
    """The rate is so high that the metric rises and falls again."""
    options = ["dataset.plugin=sums", "dataset.path=answers.h5", "strategy.rank=8", "train.steps=16", "evaluate.every=1", "evaluate.micro_batch=2", "train.learning_rate=0.05",
               "checkpoint.keep_best=exact_match", "checkpoint.keep=1"]
    said = place.run(program, "train", "run.toml", "name=own", *options)
    begin = events("own", "run_begin")[0]
    declared = begin["metrics"]
    check(set(declared) == set(begin["evaluation"]) == {"loss", "accuracy", "perplexity", "exact_match", "spread"}, f"what is declared is measured: {declared}")
    check(declared["exact_match"] == {"better": "larger", "unit": "", "doc": "share of answers that are predicted to the last token"}, f"{declared}")
    check(declared["spread"]["better"] == "smaller" and declared["spread"]["unit"] == "nats", f"{declared}")
    result = strict((place / "runs/own/evaluation.json").read_text())
    check(result["metrics"] == declared, "evaluation.json says the same")
    line = next(line for line in said.splitlines() if line.startswith("  exact_match"))
    check(line.endswith("larger is better"), f"so does the table: {said}")
    check(any(line.startswith("  spread") and line.endswith("smaller is better, in nats") for line in said.splitlines()), f"with the unit: {said}")

    # Only the last token is a target, so a sample is exact when its one target is: the share of targets is the share of samples.
    values = {event["step"]: event["evaluation"] for event in events("own", "evaluated")}
    check(all(value["exact_match"] == value["accuracy"] for value in values.values()), f"as counted another way: {values}")
    check(all(value["spread"] >= 0 for value in values.values()), f"{values}")
    scores = {step: value["exact_match"] for step, value in values.items()}
    check(len(set(scores.values())) > 1, f"it moves: {scores}")
    best = min(step for step in scores if scores[step] == max(scores.values()))
    kept = os.readlink(place / "runs/own/checkpoints/best")
    check(kept == f"step-{best:06}", f"the best one stays, {best}: {kept}, {scores}")

    for ranks in (2, 3):
        place.run(*over_ranks(ranks, program, "evaluate", "runs/own"))
        there = strict((place / "runs/own/evaluation.json").read_text())
        check(there == result, f"on {ranks} ranks to the last digit: {there} {result}")

    run = (place / "run.toml").read_text() + '[[callback]]\nplugin = "early_stopping"\nmetric = "exact_match"\npatience = 2\n'
    (place / "stopping.toml").write_text(run)
    place.run(program, "train", "stopping.toml", "name=stopped", *options, "train.steps=40")
    ended = events("stopped", "run_end")[0]
    scores = [event["evaluation"]["exact_match"] for event in events("stopped", "evaluated")]
    check(ended["stop_reason"] == f"exact_match has not improved in 2 evaluations (best {max(scores):.4f})", f"{ended}, {scores}")
    check(max(scores[:-2]) >= max(scores[-2:]), f"the last two are no better: {scores}")


def a_sweep_ranks_by_it():
    options = '"dataset.plugin" = ["sums"]\n"dataset.path" = ["answers.h5"]\n"evaluate.micro_batch" = [2]\n"train.steps" = [6]\n"train.learning_rate" = [1e-6, 0.05]\n'
    (place / "sweep.toml").write_text(f'name = "ranked"\nrun = "run.toml"\nside_by_side = 1\nmetric = "exact_match"\n[values]\n{options}')
    said = place.run(program, "sweep", "sweep.toml", "--here")
    with open(place / "sweeps/ranked/results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["exact_match"]) for row in rows]
    check(scores == sorted(scores, reverse=True) and scores[0] > scores[-1], f"the largest first: {scores}")
    check("ranked by exact_match, larger is better" in said, f"it says so: {said}")
    (place / "halving.toml").write_text(f'name = "halved"\nrun = "run.toml"\nside_by_side = 1\nmetric = "exact_match"\n[halving]\nfirst = 5\nfactor = 2\n[values]\n'
                                        + options.replace("[1e-6, 0.05]", "[0.05, 1e-6]"))
    place.run(program, "sweep", "halving.toml", "--here")
    with open(place / "sweeps/halved/results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    check([row["state"] for row in rows] == ["done", "pruned"] and rows[1]["train.learning_rate"] == "1e-06", f"the smaller one is pruned: {rows}")
    for metric, words in (("exactmatch", "did you mean 'exact_match'?"), ("f1", "it measures accuracy, exact_match, loss, perplexity, spread")):
        (place / "wrong.toml").write_text(f'name = "wrong"\nrun = "run.toml"\nmetric = "{metric}"\n[values]\n{options}')
        refused("sweep", "wrong.toml", "--here", says=[f"metric: this run has no metric '{metric}'", words, "wrong.toml"])


def what_is_not_measured_is_refused_first():
    language = "it measures accuracy, loss, perplexity"
    for command in ("check", "train", "submit"):
        more = ["--print"] if command == "submit" else []
        refused(command, "run.toml", 'checkpoint.keep_best="f1"', *more, says=["command line: checkpoint.keep_best: this run has no metric 'f1'", language])
    refused("check", "run.toml", 'checkpoint.keep_best="preplexity"', says=["did you mean 'perplexity'?"])
    (place / "wrong.toml").write_text((place / "run.toml").read_text() + '[[callback]]\nplugin = "early_stopping"\nmetric = "mcc"\n')
    line = (place / "wrong.toml").read_text().splitlines().index('metric = "mcc"') + 1
    refused("train", "wrong.toml", says=[f"wrong.toml:{line}:", "early_stopping.metric: this run has no metric 'mcc'", language])
    # The loss decides as well as the data do.
    (place / "dpo.toml").write_text(preference_run())
    refused("check", "dpo.toml", 'checkpoint.keep_best="perplexity"', says=["it measures accuracy, loss, rewards/chosen, rewards/margins, rewards/rejected"])
    place.run(program, "check", "dpo.toml", 'checkpoint.keep_best="rewards/margins"')


def preference_run():
    head, training = RUN.replace('plugin = "instruction"\npath = "sums.h5"', 'plugin = "preference"\npath = "preference.h5"').split("[strategy]\n")
    return head + "[[strategy]]\n" + training.split("[train]")[0] + '[[strategy]]\nplugin = "dpo"\nbeta = 0.3\n[train]' + training.split("[train]")[1]


def classes_have_f1_and_mcc():
    text = RUN.replace('plugin = "llama"\npath = "model"', 'plugin = "bert"\npath = "classifier"').replace('plugin = "instruction"\npath = "sums.h5"',
                                                                                                        'plugin = "classification"\npath = "classification.h5"')
    (place / "classes.toml").write_text(text)
    place.run(program, "train", "classes.toml", "name=classes", "checkpoint.keep_best=mcc", "evaluate.every=3")
    declared = events("classes", "run_begin")[0]["metrics"]
    check(set(declared) == {"loss", "accuracy", "f1_macro", "mcc"}, f"{declared}")
    last = events("classes", "evaluated")[-1]["evaluation"]
    check(0 <= last["f1_macro"] <= 1 and -1 <= last["mcc"] <= 1, f"{last}")


def scalars_are_the_same_on_any_number_of_ranks():
    """Which samples a step takes does not depend on the ranks: their row numbers tell what the means must be."""
    head, training = RUN.split("[strategy]\n")
    strategies = "[[strategy]]\n" + training.split("[train]")[0] + '[[strategy]]\nplugin = "reporter"\n[train]' + training.split("[train]")[1]
    (place / "reports.toml").write_text(head + strategies)
    reports = {}
    for ranks in (1, 2, 3):
        said = place.run(*over_ranks(ranks, program, "train", "reports.toml", f"name=reports{ranks}", "train.steps=8", "parallel.reproducible=true"))
        steps = events(f"reports{ranks}", "step_end")
        check(all("scalars" in step for step in steps), f"every step has some: {steps}")
        reports[ranks] = [step["scalars"] for step in steps]
        check("ids/all" in said, f"progress shows them: {said}")
    check(reports[1] == reports[2] == reports[3], f"the same on any number of ranks: {reports}")
    with h5py.File(place / "sums.h5") as file:
        check(len(file["train/tokens.offsets"]) - 1 == 32, "an epoch has four steps of eight samples")
    for epoch in (reports[1][:4], reports[1][4:]):
        check(math.isclose(sum(step["ids/all"] for step in epoch) / 4, 31 / 2), f"every sample is seen once: {epoch}")
        check([step["ids/first"] for step in epoch if "ids/first" in step] == [None], f"one step sees the first sample and reports NaN, which is null: {epoch}")
    status = strict(place.run(program, "status", "runs/reports2", "--json"))["runs"][0]
    check(status["scalars"] == {name: value for name, value in reports[2][-1].items() if value is not None}, f"status has the newest: {status}")
    check(status["metrics"]["loss"]["better"] == "smaller", f"and the declarations: {status}")
    bad = (head + strategies).replace('plugin = "reporter"', 'plugin = "reporter"\nbad_name = true')
    (place / "bad.toml").write_text(bad)
    said = place.run(program, "train", "bad.toml", "name=bad", expect=2)
    check("a strategy reports a scalar 'two words'" in said, f"a name that is no key: {said}")


def what_is_no_number_breaks_no_file():
    place.run(program, "train", "run.toml", "name=broken", "dataset.plugin=sums", "dataset.path=answers.h5", "dataset.broken=true", "evaluate.every=2", "checkpoint.every=2",
              'checkpoint.keep_best="exact_match"', "train.steps=4")
    check(all(event["evaluation"]["exact_match"] is None for event in events("broken", "evaluated")), "null in metrics.jsonl")
    check(not (place / "runs/broken/checkpoints/best").exists(), "it is never the best")
    check(strict((place / "runs/broken/evaluation.json").read_text())["tuned"]["exact_match"] is None, "null in evaluation.json")
    status = strict(place.run(program, "status", "runs/broken", "--json"))["runs"][0]
    check("exact_match" not in status["evaluation"] and status["state"] == "done" and not status["remark"], f"status reads it: {status}")
    place.run(program, "train", "run.toml", "name=broken", "dataset.plugin=sums", "dataset.path=answers.h5", "dataset.broken=true", "evaluate.every=2", "checkpoint.every=2",
              'checkpoint.keep_best="exact_match"', "train.steps=4", "--resume")


make_model(place / "model")
make_classifier(place / "classifier")
make_recipe(place)
place.run(program, "prepare", "sums.toml")
write_labelled(place)
for kind in ("preference", "classification"):
    place.run(program, "prepare", f"{kind}.toml")
write_answers(place)
place.run(program, "prepare", "answers.toml")
(place / "run.toml").write_text(RUN)

for test in (a_plugins_own_metric_reaches_everything, a_sweep_ranks_by_it, what_is_not_measured_is_refused_first, classes_have_f1_and_mcc,
             scalars_are_the_same_on_any_number_of_ranks, what_is_no_number_breaks_no_file):
    test()
    print("ok", test.__name__, flush=True)
