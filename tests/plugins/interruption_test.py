"""What happens when things break, on a tiny model: signals, deadlines, stuck and failing ranks, numbers that are not finite, memory, disks.

    interruption_test.py BUILD_FOLDER
"""
import errno
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import RUN, Workplace, check, environment, make_model, make_recipe, over_ranks, ranks_of

build = Path(sys.argv[1]).resolve()
program = build / "attune"
place = Workplace(build / "tests" / "interruption")
STEADY = ("train.schedule=constant", "train.warmup=0.0")
FAULTY = RUN.replace('[strategy]\nplugin = "lora"\nrank = 4', '[strategy]\nplugin = "faulty"') + f'\n[checkpoint]\nevery = 2\nkeep = 0\n'


def weights(run, kind="adapter"):
    return (place / f"runs/{run}" / kind / ("adapter_model.safetensors" if kind == "adapter" else "model.safetensors")).read_bytes()


def history(run):
    return [entry["what"] for entry in json.loads((place / f"runs/{run}/record.json").read_text())["history"]]


def wait_until(holds, process, what, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        check(process.poll() is None, f"the run goes on until {what}: {process.stdout.read() if process.poll() is not None else ''}")
        check(time.monotonic() < end, f"{what} within {seconds} s")
        time.sleep(0.02)


def one_rank_s_signal_reaches_all_and_a_second_one_does_no_harm():
    process = place.start(*map(str, over_ranks(2, program, "train", "run.toml", "name=signalled", "train.steps=100000", *STEADY)))
    wait_until(lambda: place.steps_done("signalled") >= 3, process, "three steps")
    ranks = ranks_of(process)
    os.kill(ranks[-1], signal.SIGUSR1)  # to one rank alone
    for _ in range(5):
        time.sleep(0.01)
        try:
            os.kill(ranks[-1], signal.SIGTERM)
        except ProcessLookupError:
            break
    said, _ = process.communicate(timeout=60)
    check(process.returncode == 75, f"exit code 75, not {process.returncode}: {said}")
    check(history("signalled") == ["started", "interrupted"], f"the record says so: {history('signalled')}")
    saved = place.events("signalled", "interrupted")[0]["step"]
    place.run(*over_ranks(2, program, "train", "run.toml", "name=signalled", f"train.steps={saved + 2}", *STEADY, "--resume-anyway"))
    check([step["step"] for step in place.events("signalled", "step_end")] == list(range(1, saved + 3)), "no step is lost or done twice")
    check(history("signalled") == ["started", "interrupted", "resumed", "finished"], f"the record goes on: {history('signalled')}")


def a_refused_resume_leaves_the_run_as_it_was():
    folder = place / "runs/signalled"
    before = {file: (folder / file).read_bytes() for file in ("run.toml", "record.json", "metrics.jsonl")}
    for change, words in (("strategy.rank=3", "trains something else"), ("train.learning_rate=0.5", "with different settings")):
        said = place.run(*over_ranks(2, program, "train", "runs/signalled/run.toml", change, "--resume"), expect=2)
        check(words in said, f"{change} is refused: {said}")
        check({file: (folder / file).read_bytes() for file in before} == before, f"{change}: nothing is written")


def rename_away(run, process, ranks, steps=3):
    """As rm -r would, but at once."""
    wait_until(lambda: place.steps_done(run) >= steps, process, f"{steps} steps")
    (place / f"runs/{run}").rename(place / f"{run}-{ranks}")


def a_removed_directory_is_made_again():
    for ranks in (1, 2):
        options = ("name=removed", "checkpoint.every=10", *STEADY)
        process = place.start(*map(str, over_ranks(ranks, program, "train", "run.toml", "train.steps=100000", *options)))
        rename_away("removed", process, ranks)
        said, _ = process.communicate(timeout=60)
        check(process.returncode == 75, f"it ends with 75, not {process.returncode}: {said}")
        check(said.count("attune: runs/removed: was removed during the run") == 1, f"one sentence says so: {said}")
        last = json.loads((place / "runs/removed/record.json").read_text())["history"][-1]
        check(last["note"] == "by the removal of its directory" and last["step"] % 10 == 0, f"at its next checkpoint: {last}")
        check(not list((place / "runs/removed").glob("*lock*")), "nobody holds it")
        steps = f"train.steps={last['step'] + 2}"
        place.run(*over_ranks(ranks, program, "train", "run.toml", steps, *options, "--resume-anyway"))
        check(history("removed") == ["started", "interrupted", "resumed", "finished"], f"it goes on: {history('removed')}")
        place.run(*over_ranks(ranks, program, "train", "run.toml", steps, *STEADY, f"name=untouched-{ranks}"))
        check(weights("removed") == weights(f"untouched-{ranks}"), "the same adapter to the last bit")
        shutil.rmtree(place / "runs/removed")


def a_directory_that_is_removed_before_the_last_save_is_made_again():
    process = place.start(program, "train", "run.toml", "name=late", "train.steps=60", *STEADY)
    rename_away("late", process, 1)
    said, _ = process.communicate(timeout=60)
    check(process.returncode == 0 and "was removed during the run" in said, f"it ends as usual: {said}")
    check(history("late") == ["started", "finished"] and weights("late") and (place / "runs/late/checkpoints/latest").exists(), "with its result and its last checkpoint")


def a_directory_that_another_run_has_taken_is_left_to_it():
    name = "taken"
    for ranks in (1, 2):
        process = place.start(*map(str, over_ranks(ranks, program, "train", "run.toml", f"name={name}", "train.steps=100000", "checkpoint.every=50", *STEADY)))
        rename_away(name, process, ranks)
        (place / f"runs/{name}").mkdir()
        (place / f"runs/{name}/record.json").write_text('{"history": [{"what": "started"}, {"what": "finished"}]}')
        said, _ = process.communicate(timeout=90)
        check(process.returncode == 2, f"a mistake, not {process.returncode}: {said}")
        check(said.count("was removed during this run and now contains another run") == 1, f"one sentence: {said}")
        check(os.listdir(place / f"runs/{name}") == ["record.json"], f"nothing is written to it: {os.listdir(place / f'runs/{name}')}")
        shutil.rmtree(place / f"runs/{name}")


def an_interrupted_evaluation_is_made_up_for():
    """With an evaluation of many small batches the signal comes within it; the resumed run does it first, and ends as the other does."""
    options = ("train.steps=4", "evaluate.every=2", "evaluate.micro_batch=1")
    place.run(program, "train", "long_evaluation.toml", "name=undisturbed", *options)
    process = place.start(program, "train", "long_evaluation.toml", "name=disturbed", *options)
    wait_until(lambda: place.steps_done("disturbed") >= 2, process, "two steps")
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    check(process.returncode == 75, f"exit code 75, not {process.returncode}: {said}")
    check(len(place.events("disturbed", "evaluated")) == 0 and place.steps_done("disturbed") == 2, "it was interrupted in the evaluation")
    place.run(program, "train", "long_evaluation.toml", "name=disturbed", *options, "--resume")
    for kind in ("step_end", "evaluated", "epoch_end"):
        ours, theirs = ([{key: value for key, value in event.items() if "second" not in key} for event in place.events(run, kind)] for run in ("disturbed", "undisturbed"))
        check(ours == theirs, f"the same events: {ours} {theirs}")
    check(weights("disturbed") == weights("undisturbed"), "the same adapter to the last bit")


def a_run_ends_in_time_before_its_limit():
    started = time.monotonic()
    place.run(program, "train", "run.toml", "name=limited", "train.steps=100000", "train.time_limit=0:09", *STEADY, expect=75)
    took = time.monotonic() - started
    check(took < 12, f"it ended before nine seconds of training were over: {took:.1f} s")
    record = json.loads((place / "runs/limited/record.json").read_text())
    check(record["history"][-1]["note"] == "by the time limit", f"the record says why: {record['history']}")
    check(place.events("limited", "interrupted")[0]["step"] > 0, "it trained until then")
    said = place.run(program, "train", "run.toml", "name=unread", "train.time_limit=soon", expect=2)
    check("time_limit" in said and "hours:minutes:seconds" in said, f"a limit that is no time is refused: {said}")


def a_stuck_rank_ends_all_with_its_phase_and_stack():
    for fault, words in {"hang": ["rank 1 on", "phase 'forward' of step 3", "Its stack:", "nanosleep", "faulty_fixture.so"], "stop_process": ["rank 1 on", "its process is stopped, dead or unreachable"]}.items():
        process = place.start(*map(str, over_ranks(2, program, "train", "faulty.toml", f"name={fault}", f"strategy.fault={fault}", "strategy.at=5", "strategy.rank=1", "parallel.watchdog=5")))
        started = time.monotonic()
        try:
            said, _ = process.communicate(timeout=90)
        except Exception:
            process.kill()
            sys.exit(f"the run hangs when one rank does: {fault}")
        check(process.returncode == 3, f"exit code 3, not {process.returncode}: {said}")
        for word in words:
            check(word in said, f"it tells '{word}': {said}")


def a_rank_that_throws_ends_all():
    said = place.run(*over_ranks(2, program, "train", "faulty.toml", "name=throwing", "strategy.fault=throw", "strategy.at=5", "strategy.rank=1"), expect=3)
    check("[rank 1/2] strategy 'faulty' failed in loss at step 3: the fixture throws" in said, f"with its message: {said}")


def numbers_that_are_not_finite_stop_the_run_or_are_skipped():
    said = place.run(*over_ranks(2, program, "train", "faulty.toml", "name=nan-stop", "strategy.fault=bad_loss", "strategy.at=5", "strategy.rank=1"), expect=2)
    check("step 3: the loss is nan" in said, f"the step is named: {said}")
    noted = [json.loads(line) for line in (place / "runs/nan-stop/not_finite.jsonl").read_text().splitlines()]
    check(len(noted) == 1 and noted[0]["step"] == 3 and len(noted[0]["samples"]) == 2, f"the micro-batch that caused it is noted: {noted}")
    for fault in ("bad_loss", "bad_gradient"):
        place.run(*over_ranks(2, program, "train", "faulty.toml", f"name={fault}-skip", f"strategy.fault={fault}", "strategy.at=5", "strategy.rank=1", "train.on_not_finite=skip"))
        steps = place.events(f"{fault}-skip", "step_end")
        check([step.get("skipped_steps", 0) for step in steps] == [0, 0, 1, 1, 1, 1], f"one step is skipped and counted: {steps}")
        check(all(step["loss"] is not None for step in steps[3:]), "the run goes on with finite losses")
    noted = json.loads((place / "runs/bad_gradient-skip/not_finite.jsonl").read_text())
    check("gradient norm" in noted["what"] and len(noted["samples"]) == 8, f"any sample of the step may have made the gradient so: {noted}")
    said = place.run(program, "train", "faulty.toml", "name=nan-always", "strategy.fault=bad_loss", "strategy.at=3", "strategy.times=1000", "train.on_not_finite=skip", "train.steps=100", expect=2)
    check("10 steps in a row" in said, f"a run that only skips ends: {said}")


def running_out_of_memory_says_what_to_lower():
    said = place.run(*over_ranks(2, program, "train", "faulty.toml", "name=memory", "strategy.fault=memory", "strategy.at=5", "strategy.rank=1"), expect=2)
    for word in ("step 3: rank 1 ran out of memory", "weights", "optimizer", "train.micro_batch"):
        check(word in said, f"it tells '{word}': {said}")


def the_micro_batch_that_fits_is_found_and_kept():
    said = place.run(program, "train", "run.toml", "name=auto", 'train.micro_batch="auto"', "checkpoint.every=3", "checkpoint.keep=0")
    check("train.micro_batch: 8 samples fit" in said, f"all of the step's samples fit: {said}")
    place.run(program, "train", "run.toml", "name=eight", "train.micro_batch=8")
    check(weights("auto") == weights("eight"), "it trains as with that number")
    shutil.rmtree(place / "runs/auto/checkpoints/step-000006")
    said = place.run(program, "train", "run.toml", "name=auto", 'train.micro_batch="auto"', "checkpoint.every=3", "checkpoint.keep=0", "--resume")
    check("samples fit" not in said and weights("auto") == weights("eight"), f"the resumed run keeps it: {said}")


def reproducible_runs_have_the_same_bits_on_any_number_of_ranks():
    options = ("parallel.reproducible=true", "strategy.dropout=0.1", "train.steps=9", "checkpoint.every=3", "checkpoint.keep=0", "evaluate.every=3", "train.micro_batch=1")
    for ranks in (1, 2, 4):
        place.run(*over_ranks(ranks, program, "train", "run.toml", f"name=bits{ranks}", *options))
        check(weights(f"bits{ranks}") == weights("bits1"), f"{ranks} ranks give the adapter of one to the last bit")
        check([step["loss"] for step in place.events(f"bits{ranks}", "step_end")] == [step["loss"] for step in place.events("bits1", "step_end")], "and its losses")
        check([event["evaluation"] for event in place.events(f"bits{ranks}", "evaluated")] == [event["evaluation"] for event in place.events("bits1", "evaluated")], "and its metrics")
    run = place / "runs/bits4"
    for ranks, step in ((2, 3), (1, 6)):  # begun on four, gone on with two, ended by one
        for checkpoint in (run / "checkpoints").glob("step-*"):
            if int(checkpoint.name[5:]) > step:
                shutil.rmtree(checkpoint)
        said = place.run(*over_ranks(ranks, program, "train", "run.toml", "name=bits4", *options, "--resume"))
        check(f"at step {step}" in said and weights("bits4") == weights("bits1"), f"resumed on {ranks}: {said}")
    said = place.run(program, "train", "run.toml", "name=bitsauto", "parallel.reproducible=true", 'train.micro_batch="auto"', expect=2)
    check("give a number" in said, f"what depends on the machine is refused: {said}")


def a_run_is_repeated_from_its_record():
    place.run(program, "train", "run.toml", "name=recorded", "train.learning_rate=0.003")
    place.run(program, "train", "runs/recorded/record.json", "name=repeated")
    check(weights("recorded") == weights("repeated"), "the same adapter to the last bit")
    said = place.run(program, "train", "runs/recorded/record.json", "name=other-data", "dataset.path=long.h5", expect=2)
    check("is not the recorded one" in said and not (place / "runs/other-data").exists(), f"other data are refused: {said}")
    said = place.run(program, "train", "long.jsonl", expect=2)


def the_best_checkpoint_stays():
    place.run(program, "train", "run.toml", "name=best", "train.steps=8", "evaluate.every=2", "checkpoint.keep=1", 'checkpoint.keep_best="loss"', "train.learning_rate=0.3")
    losses = {event["step"]: event["evaluation"]["loss"] for event in place.events("best", "evaluated")}
    best = min(losses, key=losses.get)
    names = {path.name for path in (place / "runs/best/checkpoints").iterdir()}
    check(names == {f"step-{best:06}", "step-000008", "latest", "best"}, f"the best and the newest stay: {names} {losses}")
    said = place.run(program, "evaluate", "runs/best", "--checkpoint", "best")
    check(f"{losses[best]:.4f}" in said, f"the best one is evaluated: {said} {losses}")
    said = place.run(program, "train", "run.toml", "name=nometric", "checkpoint.keep_best=\"f1\"", "evaluate.every=2", expect=2)
    check("has no metric 'f1'" in said, f"an unknown metric is refused: {said}")


def a_full_disk_costs_a_checkpoint_and_not_the_run():
    environment.update(LD_PRELOAD=str(build / "tests/faulty_io.so"), FAULTY_IO=f"write:1:{errno.ENOSPC}:step-000002")
    try:
        said = place.run(program, "train", "run.toml", "name=full", "checkpoint.every=2", "checkpoint.keep=0", "evaluate.every=0")
    finally:
        del environment["LD_PRELOAD"], environment["FAULTY_IO"]
    check("the checkpoint of step 2 could not be written" in said and "No space left" in said, f"it is told: {said}")
    names = {path.name for path in (place / "runs/full/checkpoints").glob("step-*")}
    check(names == {"step-000004", "step-000006"}, f"the next ones are written: {names}")
    environment.update(LD_PRELOAD=str(build / "tests/faulty_io.so"), FAULTY_IO=f"fsync:1:{errno.EIO}:step-000006")
    try:
        said = place.run(program, "train", "run.toml", "name=last", "checkpoint.every=4", "checkpoint.keep=0", expect=2)
    finally:
        del environment["LD_PRELOAD"], environment["FAULTY_IO"]
    check({path.name for path in (place / "runs/last/checkpoints").glob("step-*")} == {"step-000004"}, "the last one failing is an error; the older one stays")
    place.run(program, "train", "run.toml", "name=last", "checkpoint.every=4", "checkpoint.keep=0", "--resume")


def data_that_go_while_the_run_reads_them_end_it_with_their_name():
    shutil.copy(place / "large.h5", place / "going.h5")  # too large for HDF5 to hold all of it
    process = place.start(*map(str, over_ranks(2, program, "train", "run.toml", "name=going", "dataset.path=going.h5", "train.steps=100000", "checkpoint.every=5", "evaluate.samples=8", *STEADY)))
    wait_until(lambda: (place / "runs/going/checkpoints/latest/COMPLETE").exists(), process, "a checkpoint")
    os.truncate(place / "going.h5", 4096)
    said, _ = process.communicate(timeout=60)
    check(process.returncode == 2 and "going.h5" in said, f"exit code 2 and the file's name: {process.returncode} {said}")
    check((place / "runs/going/checkpoints/latest/COMPLETE").exists(), "the checkpoint before it is there")


make_model(place / "model")
make_recipe(place)
make_recipe(place, rows=4000, name="long")
(place / "run.toml").write_text(RUN)
(place / "faulty.toml").write_text(f'plugins = ["{build / "tests/fixtures/faulty_fixture.so"}"]\n' + FAULTY)
(place / "long_evaluation.toml").write_text(RUN.replace("sums.h5", "long.h5"))
make_recipe(place, rows=40000, name="large")
for recipe in ("sums", "long", "large"):
    place.run(program, "prepare", f"{recipe}.toml")
tests = [one_rank_s_signal_reaches_all_and_a_second_one_does_no_harm, a_refused_resume_leaves_the_run_as_it_was, an_interrupted_evaluation_is_made_up_for, a_run_ends_in_time_before_its_limit,
         a_stuck_rank_ends_all_with_its_phase_and_stack, a_rank_that_throws_ends_all, numbers_that_are_not_finite_stop_the_run_or_are_skipped,
         running_out_of_memory_says_what_to_lower, the_micro_batch_that_fits_is_found_and_kept, reproducible_runs_have_the_same_bits_on_any_number_of_ranks,
         a_run_is_repeated_from_its_record, the_best_checkpoint_stays, a_full_disk_costs_a_checkpoint_and_not_the_run,
         data_that_go_while_the_run_reads_them_end_it_with_their_name, a_removed_directory_is_made_again,
         a_directory_that_is_removed_before_the_last_save_is_made_again, a_directory_that_another_run_has_taken_is_left_to_it]
for test in tests:
    if len(sys.argv) > 2 and sys.argv[2] not in test.__name__:
        continue
    started = time.monotonic()
    test()
    print(f"ok {test.__name__} ({time.monotonic() - started:.1f} s)", flush=True)
