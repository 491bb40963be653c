"""Whole runs of the program on a tiny model: ranks, resume, signals, early stopping, evaluation, export, a rank that dies.

    training_test.py BUILD_FOLDER
"""
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import RUN, Workplace, check, make_model, make_recipe, over_ranks, ranks_of

build = Path(sys.argv[1]).resolve()
program = build / "attune"
place = Workplace(build / "tests" / "training")


def close(a, b, relative):
    return abs(a - b) <= relative * max(abs(a), abs(b))


def any_number_of_ranks_trains_the_same():
    for ranks in (1, 2, 4):
        place.run(*over_ranks(ranks, program, "train", "run.toml", f"name=ranks{ranks}"))
    reference = place.events("ranks1", "step_end")
    check(len(reference) == 6, f"six steps are logged: {reference}")
    for ranks in (2, 4):
        steps = place.events(f"ranks{ranks}", "step_end")
        check(close(reference[0]["grad_norm"], steps[0]["grad_norm"], 1e-6), f"{ranks} ranks give the first gradient of one: {reference[0]} {steps[0]}")
        for ours, theirs in zip(reference, steps, strict=True):
            check(close(ours["loss"], theirs["loss"], 1e-5), f"{ranks} ranks give the losses of one: {ours} {theirs}")
            check(ours["tokens"] == theirs["tokens"], "the same tokens are counted")


def the_record_counts_what_ranks_send_each_other():
    sent = {}
    for steps in (12, 20):  # of as many digits: texts are sent too
        place.run(*over_ranks(2, program, "train", "run.toml", f"name=sent{steps}", f"train.steps={steps}"))  # the base is evaluated already
        sent[steps] = json.loads((place / f"runs/sent{steps}/record.json").read_text())["communication"]
    parameters = place.events("sent20", "run_begin")[0]["trainable_parameters"]
    # Each step and rank: the float32 gradients; 6 counts and the losses of 4 micro-batches, as doubles; an integer, to agree on an interruption;
    # three doubles, to agree on what callbacks ask for.
    of_step = 4 * parameters + 8 * (6 + 4) + 8 + 8 * 3
    more = {kind: {key: sent[20][kind][key] - sent[12][kind][key] for key in ("calls", "bytes")} for kind in sent[12]}
    check(more.pop("all_reduce") == {"calls": 8 * 2 * 4, "bytes": 8 * 2 * of_step}, f"eight more steps of two ranks send {of_step} bytes each: {sent}")
    check(more.pop("broadcast") == {"calls": 8 * 2, "bytes": 8 * 16}, f"rank 0 sends two times: {sent}")
    check(not any(other["calls"] for other in more.values()), f"and nothing else: {sent}")
    check("communication" not in json.loads((place / "runs/ranks1/record.json").read_text()), "one rank sends nothing")


def the_run_directory_holds_what_is_promised():
    run = place / "runs/ranks2"
    evaluation = json.loads((run / "evaluation.json").read_text())
    check(evaluation["samples"] == 8 and evaluation["tuned"]["loss"] < evaluation["base"]["loss"], f"tuning helps: {evaluation}")
    record = json.loads((run / "record.json").read_text())
    check(record["ranks"] == 2 and len(record["base_model"]["sha256"]) == 64, f"the record is whole: {record}")
    made_of = sorted(plugin["name"].split()[0] for plugin in record["plugins"])
    check(made_of == ["adamw", "cosine", "instruction", "jsonl", "llama", "lora", "progress"], f"the record names the plugins of the run, and no other: {made_of}")
    for plugin in record["plugins"]:
        check(plugin["sha256"] == hashlib.sha256(Path(plugin["file"]).read_bytes()).hexdigest(), f"the record has the hash of each plugin's file: {plugin}")
    check((run / "adapter/adapter_model.safetensors").exists() and (run / "adapter/adapter_config.json").exists(), "the adapter is there")
    said = place.run(program, "evaluate", run)
    check(f"{evaluation['tuned']['loss']:.4f}" in said, f"`attune evaluate` finds the same loss: {said}")
    said = place.run(program, "generate", run, "--prompt", "What is 3 and 3?", "--max-tokens", "8")
    check("base:" in said and "tuned:" in said, f"base and tuned answer: {said}")
    tuned = said.split("tuned: ")[1].rstrip("\n")
    (place / "prompts.txt").write_text("What is 1 and 1?\n\nWhat is 3 and 3?\n")
    place.run(program, "generate", run, "--prompts", "prompts.txt", "--output", "answers.jsonl", "--max-tokens", "8")
    answers = [json.loads(line) for line in (place / "answers.jsonl").read_text().splitlines()]
    check([row["prompt"] for row in answers] == ["What is 1 and 1?", "What is 3 and 3?"] and answers[1]["tuned"] == tuned, f"a file of prompts is answered as each alone: {answers} {said}")
    (place / "windows.txt").write_bytes("\ufeffWhat is 1 and 1?\r\n \r\nWhat is 3 and 3?\r\nOne\u2028line".encode())
    (place / "windows.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "What is 1 and 1?"}\r\n{"prompt": "half \\ud83d"}\r\n')
    for file, prompts in [("windows.txt", ["What is 1 and 1?", "What is 3 and 3?", "One\u2028line"]), ("windows.jsonl", ["What is 1 and 1?", "half \ufffd"])]:
        place.run(program, "generate", run, "--prompts", file, "--output", "windows-answers.jsonl", "--max-tokens", "8")
        said = [json.loads(line) for line in (place / "windows-answers.jsonl").read_text().split("\n") if line]
        check([row["prompt"] for row in said] == prompts and said[0] == answers[0], f"{file} holds the same prompts as one with line feeds: {said}")
    (place / "prompts.jsonl").write_text('{"prompt": "a"}\n{"question": "b"}\n')
    said = place.run(program, "generate", run, "--prompts", "prompts.jsonl", expect=2)
    check("prompts.jsonl:2: is not a JSON object" in said, f"a line that is none is named: {said}")


def a_resumed_run_is_the_run_that_would_have_been():
    place.run(program, "train", "run.toml", "name=whole", "checkpoint.every=3", "checkpoint.keep=0", "strategy.dropout=0.1", "evaluate.every=2")
    shutil.copytree(place / "runs/whole", place / "runs/resumed")
    shutil.rmtree(place / "runs/resumed/checkpoints/step-000006")
    said = place.run(program, "train", "run.toml", "name=resumed", "checkpoint.every=3", "checkpoint.keep=0", "strategy.dropout=0.1", "evaluate.every=2", "--resume")
    check("at step 3" in said, f"it resumes at step 3: {said}")
    for whole, resumed in zip(place.events("whole", "step_end"), place.events("resumed", "step_end"), strict=True):
        check((whole["loss"], whole["grad_norm"]) == (resumed["loss"], resumed["grad_norm"]), f"the same losses to the last bit: {whole} {resumed}")
    same = [(place / f"runs/{name}/adapter/adapter_model.safetensors").read_bytes() for name in ("whole", "resumed")]
    check(same[0] == same[1], "the same adapter to the last bit")
    said = place.run(program, "train", "run.toml", "name=whole", expect=2)
    check("--resume" in said, f"a run is not overwritten by mistake: {said}")
    said = place.run(program, "train", "run.toml", "name=whole", "seed=4", "strategy.dropout=0.1", "checkpoint.every=3", "checkpoint.keep=0", "evaluate.every=2", "--resume", expect=2)
    check("seed is 4 and was 3" in said and "--resume-anyway" in said, f"a checkpoint with other settings is refused: {said}")
    said = place.run(program, "train", "run.toml", "name=whole", "strategy.rank=2", "strategy.dropout=0.1", "seed=4", "--resume-anyway", expect=2)
    check("strategy.rank is 2 and was 4" in said and "seed" not in said, f"a checkpoint of another strategy is refused in any case: {said}")


def micro_batches_of_any_kind_give_the_same_losses():
    reference = place.events("ranks1", "step_end")
    for name, settings in (("tokens", ["train.micro_tokens=96"]), ("grouped", ["train.group_lengths=true"]), ("both", ["train.micro_tokens=96", "train.group_lengths=true"])):
        for ranks in (1, 2):
            run = f"{name}-{ranks}"
            place.run(*over_ranks(ranks, program, "train", "run.toml", f"name={run}", *settings))
            for ours, theirs in zip(place.events(run, "step_end"), reference, strict=True):
                check(close(ours["loss"], theirs["loss"], 1e-5) and ours["tokens"] == theirs["tokens"], f"{run}: {ours} {theirs}")


def a_model_in_bfloat16_trains_and_resumes():
    rounded = ["model.dtype=bfloat16", "checkpoint.every=3", "checkpoint.keep=0"]
    place.run(program, "train", "run.toml", "name=bfloat16", *rounded)
    losses = [step["loss"] for step in place.events("bfloat16", "step_end")]
    reference = [step["loss"] for step in place.events("ranks1", "step_end")]
    check(losses != reference and close(losses[0], reference[0], 0.02) and losses[-1] < losses[0], f"rounded, and it learns: {losses} {reference}")
    shutil.copytree(place / "runs/bfloat16", place / "runs/bfloat16-resumed")
    shutil.rmtree(place / "runs/bfloat16-resumed/checkpoints/step-000006")
    place.run(program, "train", "run.toml", "name=bfloat16-resumed", *rounded, "--resume")
    check([step["loss"] for step in place.events("bfloat16-resumed", "step_end")] == losses, "a resumed run has the same losses to the last bit")
    same = [(place / f"runs/{name}/adapter/adapter_model.safetensors").read_bytes() for name in ("bfloat16", "bfloat16-resumed")]
    check(same[0] == same[1] and b'"F32"' in same[0], "the same adapter to the last bit; what is trained is exported in float32")


def full_training_in_bfloat16_keeps_float32_masters():
    """At a rate at which an update is less than half of a weight's last digit in bfloat16, nearly everywhere."""
    text = (place / "run.toml").read_text()
    (place / "full.toml").write_text(re.sub(r"\[strategy\][^[]*", '[strategy]\nplugin = "full"\n\n', text))
    often = ["train.learning_rate=1e-4", "checkpoint.every=3", "checkpoint.keep=0"]
    runs = {"full-float32": [], "full-bfloat16": ["model.dtype=bfloat16"], "full-bfloat16-2": ["model.dtype=bfloat16"], "full-exact-1": ["model.dtype=bfloat16", "parallel.reproducible=true"], "full-exact-3": ["model.dtype=bfloat16", "parallel.reproducible=true"]}
    for name, settings in runs.items():
        ranks = int(name[-1]) if name[-2] == "-" else 1
        place.run(*over_ranks(ranks, program, "train", "full.toml", f"name={name}", *often, *settings))
    losses = {name: [step["loss"] for step in place.events(name, "step_end")] for name in runs}
    for name in runs:
        fell, reference = (losses[each][0] - losses[each][-1] for each in (name, "full-float32"))
        check(fell > 0.5 * reference > 0, f"{name}: updates add up: {losses[name]} {losses['full-float32']}")
    check(losses["full-exact-1"] == losses["full-exact-3"], f"three ranks have the losses of one: {losses}")
    shutil.copytree(place / "runs/full-bfloat16", place / "runs/full-bfloat16-resumed")
    shutil.rmtree(place / "runs/full-bfloat16-resumed/checkpoints/step-000006")
    place.run(program, "train", "full.toml", "name=full-bfloat16-resumed", *often, "model.dtype=bfloat16", "--resume")
    check([step["loss"] for step in place.events("full-bfloat16-resumed", "step_end")] == losses["full-bfloat16"], "a resumed run has the same losses to the last bit")
    for one, other in (("full-bfloat16", "full-bfloat16-resumed"), ("full-exact-1", "full-exact-3")):
        same = [(place / f"runs/{name}/model/model.safetensors").read_bytes() for name in (one, other)]
        check(same[0] == same[1] and b'"BF16"' in same[0], f"{one} and {other} made the same model to the last bit")


def the_linear_schedule_falls_to_zero():
    place.run(program, "train", "run.toml", "name=linear", "train.schedule=linear", "train.warmup=0.33")
    rates = [step["learning_rate"] for step in place.events("linear", "step_end")]
    check(all(close(rate, 1e-2 * share, 1e-12) for rate, share in zip(rates, (0, 0.5, 1, 0.75, 0.5, 0.25), strict=True)), f"two steps up, four down: {rates}")


def a_damaged_checkpoint_is_skipped():
    place.run(program, "train", "run.toml", "name=damaged", "checkpoint.every=3", "checkpoint.keep=0")
    state = place / "runs/damaged/checkpoints/step-000006/state-0000-00.h5"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 0xFF
    state.write_bytes(content)
    said = place.run(program, "train", "run.toml", "name=damaged", "--resume")
    check("step-000006" in said and "at step 3" in said, f"the damaged one is named, the one before is used: {said}")


def wait_for_steps(run, process, steps=5):
    for _ in range(600):
        if place.steps_done(run) >= steps:
            return
        check(process.poll() is None, f"the run goes on: {process.stdout.read() if process.poll() is not None else ''}")
        time.sleep(0.1)
    sys.exit("the run never got going")


def a_signal_saves_the_state():
    process = place.start(program, "train", "run.toml", "name=signalled", "train.steps=100000", "train.schedule=constant")
    wait_for_steps("signalled", process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    check(process.returncode == 75, f"exit code 75, not {process.returncode}: {said}")
    saved = place.events("signalled", "interrupted")[0]["step"]
    said = place.run(program, "train", "run.toml", "name=signalled", f"train.steps={saved + 2}", "train.schedule=constant", "--resume-anyway")
    check([step["step"] for step in place.events("signalled", "step_end")] == list(range(1, saved + 3)), "no step is lost or done twice")


def a_rank_that_dies_ends_all():
    process = place.start(*map(str, over_ranks(2, program, "train", "run.toml", "name=killed", "train.steps=100000")))
    wait_for_steps("killed", process)
    ranks = ranks_of(process)
    check(len(ranks) >= 2, f"mpirun has its ranks: {ranks}")
    os.kill(ranks[-1], signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    check(process.returncode != 0, f"mpirun ends with an error: {said}")


def early_stopping_ends_the_run():
    text = (place / "run.toml").read_text() + '\n[evaluate]\nevery = 1\n[[callback]]\nplugin = "early_stopping"\npatience = 2\nmin_delta = 100.0\n'
    (place / "stopping.toml").write_text(text)
    said = place.run(program, "train", "stopping.toml", "name=stopping", "train.steps=50")
    end = place.events("stopping", "run_end")[0]
    check(end["step"] == 3 and "has not improved in 2 evaluations" in end["stop_reason"], f"it stops after patience: {end} {said}")


def every_strategy_trains_and_exports():
    from transformers import AutoModelForCausalLM
    for strategy, options in {"full": "", "freeze": 'train = ["*norm*"]', "lora": "rslora = true"}.items():
        text = RUN.split("[strategy]")[0] + f'[strategy]\nplugin = "{strategy}"\n{options}\n[train]' + RUN.split("[train]")[1]
        (place / f"{strategy}.toml").write_text(text)
        place.run(*over_ranks(2, program, "train", f"{strategy}.toml", f"name={strategy}"))
        steps = place.events(strategy, "step_end")
        check(steps[-1]["loss"] < steps[0]["loss"], f"{strategy} learns: {steps[0]['loss']} -> {steps[-1]['loss']}")
        place.run(program, "export", place / f"runs/{strategy}", "--to", f"exported-{strategy}", "--merge")
        AutoModelForCausalLM.from_pretrained(place / f"exported-{strategy}")


def check_says_what_a_run_takes():
    for how, parts in {(): ("memory per rank  about", "--measure"), ("--measure",): ("at most: weights", "s per step")}.items():
        said = place.run(program, "check", "run.toml", "train.clip=0.5", *how)
        for part in ("train.clip", "command line", "run.toml:", "default", "is in order", *parts):
            check(part in said, f"`attune check` tells '{part}': {said}")
    check(not (place / "runs").exists(), "`attune check` leaves nothing behind")


make_model(place / "model")
make_recipe(place)
(place / "run.toml").write_text(RUN)
place.run(program, "prepare", "sums.toml")
for test in (check_says_what_a_run_takes, any_number_of_ranks_trains_the_same, the_record_counts_what_ranks_send_each_other, the_run_directory_holds_what_is_promised,
             a_resumed_run_is_the_run_that_would_have_been, micro_batches_of_any_kind_give_the_same_losses, a_model_in_bfloat16_trains_and_resumes, full_training_in_bfloat16_keeps_float32_masters,
             the_linear_schedule_falls_to_zero, a_damaged_checkpoint_is_skipped, a_signal_saves_the_state,
             a_rank_that_dies_ends_all, early_stopping_ends_the_run, every_strategy_trains_and_exports):
    started = time.monotonic()
    test()
    print(f"ok {test.__name__} ({time.monotonic() - started:.1f} s)", flush=True)
