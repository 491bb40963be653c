"""Files of run directories as people meet them: read by pandas and strict JSON readers, of an earlier Attune, of a newer one, and after crashes.

    run_directory_test.py BUILD_FOLDER
"""
import csv
import json
import math
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from tiny import RUN, Workplace, check, environment, make_model, make_recipe, write_answers

build = Path(sys.argv[1]).resolve()
program = build / "attune"
place = Workplace(build / "tests" / "run_directory")
environment["ATTUNE_PLUGINS"] = str(build / "tests/fixtures/exact_match_fixture.so")
BROKEN = ("dataset.plugin=sums", "dataset.path=answers.h5", "dataset.broken=true", "evaluate.every=2")  # a metric that is NaN


def strict(text):
    """JSON as RFC 8259 has it: without NaN and Infinity."""
    def refuse(constant):
        sys.exit(f"does not hold: valid JSON, but there is {constant}")
    return json.loads(text, parse_constant=refuse)


def log_of(run):
    return place / "runs" / run / "metrics.jsonl"


def copy(run, name):
    shutil.copytree(place / "runs" / run, place / "runs" / name)
    return place / "runs" / name


def status(run):
    return strict(place.run(program, "status", f"runs/{run}", "--json"))["runs"][0]


def losses(run):
    return [event["loss"] for event in place.events(run, "step_end")]


def train(name, *more, **expected):
    return place.run(program, "train", "run.toml", f"name={name}", "checkpoint.every=2", *more, **expected)


def in_one_sentence(said, *words):
    lines = [line for line in said.splitlines() if line.startswith("attune: ")]
    check(len(lines) == 1 and all(word in lines[0] for word in words), f"one sentence with {words}: {said}")


def files_give_their_format_and_version():
    begin = place.events("whole", "run_begin")[0]
    check((begin["format"], begin["version"]) == ("attune-metrics", 1), f"{begin}")
    for file, form in {"record.json": "attune-record", "evaluation.json": "attune-evaluation"}.items():
        whole = strict((place / "runs/whole" / file).read_text())
        check((whole["format"], whole["version"]) == (form, 1), f"{file}: {whole}")


def pandas_reads_the_log_with_numbers_that_are_not_finite():
    import pandas

    train("broken", *BROKEN, "train.steps=4")
    lines = [strict(line) for line in log_of("broken").read_text().splitlines()]
    check(any(line.get("evaluation", {}).get("exact_match", 0) is None for line in lines), "NaN is null")
    edited = [line | {"loss": None, "grad_norm": None} if line["event"] == "step_end" and line["step"] == 4 else line for line in lines]
    copy("broken", "nulls")
    log_of("nulls").write_text("".join(json.dumps(line) + "\n" for line in edited))
    frame = pandas.read_json(log_of("nulls"), lines=True)
    steps = frame[frame.event == "step_end"]
    check(steps.loss.dtype == float and list(steps.step) == [1, 2, 3, 4], f"a column of numbers: {steps.loss}")
    check(steps.loss.isna().tolist() == [False, False, False, True], f"null is NaN: {steps.loss}")
    check(list(steps.loss[:3]) == losses("broken")[:3], "and others are as they were, to the last digit")
    seen = status("nulls")
    check(seen["step"] == 4 and seen["loss"] is None and seen["state"] == "done" and not seen["remark"], f"{seen}")
    check(seen["not_finite"] == ["exact_match"] and "exact_match" not in seen["evaluation"], f"{seen}")
    row = place.run(program, "status", "runs/nulls").splitlines()[1].split()
    check(row[:5] == ["runs/nulls", "done", "-", "4/4", "nan"], f"the table tells it from what is not known: {row}")


def a_directory_of_an_earlier_attune_is_read_and_gone_on_with():
    train("cut", "train.steps=4")
    folder = copy("cut", "old")
    lines = [json.loads(line) for line in log_of("old").read_text().splitlines()]
    for line in lines:
        line.pop("format", None), line.pop("version", None)
    log_of("old").write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    evaluation = json.loads((folder / "evaluation.json").read_text())
    del evaluation["format"], evaluation["version"]
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    (folder / "lock.1").write_text(json.dumps({"host": "x", "machine": "gone", "pid": 1, "started": "1", "job": "", "since": "2026-01-01T00:00:00Z"}) + "\n")
    said = train("old", "--resume-anyway", expect=2)
    check("was locked by process 1 on x" in said, f"the lock is understood: {said}")
    (folder / "lock.1").unlink()
    seen = status("old")
    check((seen["state"], seen["step"], seen["steps"]) == ("done", 4, 4) and not seen["remark"], f"{seen}")
    place.run(program, "evaluate", "runs/old")
    place.run(program, "train", "runs/old/record.json", "name=repeated")
    check(losses("repeated") == losses("cut"), "its record repeats it")


def a_directory_works_from_any_folder():
    train("far", "train.steps=4")
    elsewhere = Workplace(place / "elsewhere")
    here, there = place.run(program, "evaluate", "runs/far"), elsewhere.run(program, "evaluate", place / "runs/far")
    check(here.splitlines()[2:] == there.splitlines()[2:], f"evaluation is the same from elsewhere: {here}\n{there}")
    elsewhere.run(program, "train", place / "runs/far/run.toml", "train.steps=6", "--resume-anyway")
    place.run(program, "train", "run.toml", "name=near", "checkpoint.every=2", "train.steps=4")
    place.run(program, "train", "runs/near/run.toml", "train.steps=6", "--resume-anyway")
    check(len(losses("far")) == 6 and losses("far") == losses("near"), "a run goes on from elsewhere, in its own directory")
    record = strict((place / "runs/far/record.json").read_text())
    check(record["working_directory"] == str(place.folder), f"its paths still refer to where it was started: {record['working_directory']}")
    elsewhere.run(program, "train", place / "runs/whole/record.json", "name=repeated")
    check([event["loss"] for event in elsewhere.events("repeated", "step_end")] == losses("whole"), "a record is repeated from elsewhere, as a run of that folder")
    check(sorted(entry.name for entry in elsewhere.folder.iterdir()) == ["runs"], "and nothing else was written there")
    third = Workplace(place / "third")
    third.run(program, "evaluate", elsewhere / "runs/repeated")
    shutil.copytree(place / "runs/far", third / "runs/far")
    said = third.run(program, "train", "runs/far/run.toml", "--overwrite", expect=2)
    check("model" in said and len(losses("far")) == 6, f"a copy of a directory is not taken for the run: {said}")


def a_newer_version_is_refused_in_a_sentence_and_kept():
    newer = {"metrics.jsonl": ('"version":1', '"version":2'), "record.json": ('"version": 1', '"version": 2')}
    for file, (now, then) in newer.items():
        name = f"newer-{file.split('.')[0]}"
        folder = copy("whole", name)
        text = (folder / file).read_text().replace(now, then)
        (folder / file).write_text(text)
        in_one_sentence(train(name, "--resume", expect=2), file, "has version 2", "this Attune reads up to version 1")
        check((folder / file).read_text() == text, "nothing is lost")
        check("has version 2" in status(name)["remark"], f"{status(name)}")
        check("has version 2" in place.run(program, "status", f"runs/{name}"), "in the table, too")
    in_one_sentence(place.run(program, "train", "runs/newer-record/record.json", "name=again", expect=2), "has version 2")
    folder = copy("whole", "newer-lock")
    (folder / "lock.1").write_text('{"version": 2}\n')
    in_one_sentence(train("newer-lock", "--resume", expect=2), "runs/newer-lock/lock.1", "has version 2 of attune-lock")


def crashes(run):
    """What a crash may leave of the log of a run whose checkpoint was at step 4, and whose machine went down at step 5."""
    text = log_of(run).read_bytes()
    cut = text.index(b'{"event":"step_end","step":5')
    return {"torn": (text[:cut + 40], ""), "zeros": (text[:cut] + bytes(5000), "damaged at byte"), "garbage": (text[:cut] + b"\xff\xfe garbage\n", "damaged at byte"),
            "inside": (text[:cut - 30] + bytes(30) + text[cut:cut + 20], "damaged at byte"), "beginning": (bytes(100) + text[100:], "damaged at byte 0")}


def damage_is_told_and_a_resumed_run_goes_on_as_if_it_had_not_been():
    process = place.start(program, "train", "run.toml", "name=killed", "checkpoint.every=2", "train.steps=6", "train.time_limit=00:10:00")
    process.communicate()
    for kind, (text, words) in crashes("killed").items():
        folder = copy("killed", kind)
        for file in ("record.json", "evaluation.json"):
            (folder / file).unlink()
        for checkpoint in ("step-000006", "latest"):
            path = folder / "checkpoints" / checkpoint
            if path.is_symlink():
                path.unlink()
            elif path.exists():
                shutil.rmtree(path)
        log_of(kind).write_bytes(text)
        seen = status(kind)
        check(seen["step"] in (3, 4, 6) and seen["step"] > 0, f"{kind}: the newest whole step: {seen}")
        check(words in seen["remark"] and (words or not seen["remark"]), f"{kind}: {seen['remark']}")
        train(kind, "train.steps=6", "--resume")
        check(status(kind)["state"] == "done" and status(kind)["step"] == 6, f"{kind}: {status(kind)}")
        steps = []
        for line in log_of(kind).read_bytes().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            steps += [event["step"]] if event["event"] == "step_end" else []
        check(steps[-2:] == [5, 6] and len(steps) == len(set(steps)), f"{kind}: every step once: {steps}")


def a_damaged_record_is_not_replaced():
    folder = copy("whole", "no-record")
    (folder / "record.json").write_text('{"history": [')
    in_one_sentence(train("no-record", "train.steps=4", "--resume", expect=2), "runs/no-record/record.json is damaged", "remove it")
    (folder / "record.json").unlink()
    train("no-record", "train.steps=4", "--resume")


def a_sweep_survives_what_its_trials_left():
    (place / "grid.toml").write_text('name = "grid"\nrun = "run.toml"\n[values]\n"strategy.rank" = [1, 2, 3, 4, 5]\n')
    sweep = place / "sweeps/grid"
    sweep.mkdir(parents=True)
    shutil.copy(place / "grid.toml", sweep / "sweep.toml")
    begin = '{"event":"run_begin","step":0,"steps":4,"metrics":{"loss":{"better":"smaller","unit":"nats","doc":""}},"evaluation":{"loss":9.0}}\n'
    evaluated = '{"event":"evaluated","step":4,"seconds":2.5,"evaluation":{"loss":%s,"f1":%s}}\n'
    logs = {1: begin + evaluated % ("1.5", "0.5"), 2: begin + evaluated % ("null", "null"), 3: begin + "garbage\n" + evaluated % ("0.5", "null"),
            4: begin + evaluated % ("2.5", "0.25") + '{"event":"step_e', 5: begin.replace('{"event":"run_begin"', '{"event":"run_begin","version":9')}
    for rank, text in logs.items():
        trial = sweep / f"rank={rank}"
        trial.mkdir()
        (trial / "run.toml").write_text("")
        (trial / "metrics.jsonl").write_text(text)
        (trial / "record.json").write_text(json.dumps({"history": [{"what": "started"}, {"what": "finished"}]}))
    said = place.run(program, "sweep", "report", "grid.toml")
    check("attune: note: rank=3: metrics.jsonl is damaged at byte" in said and "rank=5: metrics.jsonl: has version 9" in said, said)
    check("rank=2:" not in said and "rank=4:" not in said, f"NaN and a torn line are no damage: {said}")
    rows = {row["trial"]: row for row in csv.DictReader((sweep / "results.csv").read_text().splitlines())}
    check([row for row in rows] == ["rank=3", "rank=1", "rank=4", "rank=2", "rank=5"], f"ranked: {list(rows)}")
    check({name: row["loss"] for name, row in rows.items()} == {"rank=1": "1.5", "rank=2": "nan", "rank=3": "0.5", "rank=4": "2.5", "rank=5": ""}, f"{rows}")
    check(math.isnan(float(rows["rank=3"]["f1"])) and rows["rank=4"]["f1"] == "0.25", f"{rows}")
    said = place.run(program, "sweep", "status", "sweeps/grid")
    check("rank=3: metrics.jsonl is damaged" in said and "5 trials: 5 done" in said, said)


make_model(place / "model")
make_recipe(place)
place.run(program, "prepare", "sums.toml")
write_answers(place)
place.run(program, "prepare", "answers.toml")
(place / "run.toml").write_text(RUN)
train("whole", "train.steps=4")
for test in (files_give_their_format_and_version, pandas_reads_the_log_with_numbers_that_are_not_finite, a_directory_of_an_earlier_attune_is_read_and_gone_on_with,
             a_directory_works_from_any_folder,
             a_newer_version_is_refused_in_a_sentence_and_kept, damage_is_told_and_a_resumed_run_goes_on_as_if_it_had_not_been, a_damaged_record_is_not_replaced,
             a_sweep_survives_what_its_trials_left):
    test()
    print(f"ok {test.__name__}", flush=True)
