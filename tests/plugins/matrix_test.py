"""Every strategy on every kind of model: trained, on two ranks, sharded over four, resumed, saved, loaded by PEFT or transformers, merged. What was seen is the
table of docs/strategies.md, which must hold exactly that.

    matrix_test.py BUILD_FOLDER
"""
import json
import shutil
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForSequenceClassification
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from matrix import FAMILIES, NOT_SERVED, STRATEGIES, combinations, is_served, kind_of, make_inputs, write_run
from tiny import Workplace, check, make_model, over_ranks

build = Path(sys.argv[1]).resolve()
source = Path(__file__).resolve().parent.parent.parent
program = build / "attune"
place = Workplace(build / "tests" / "matrix")

logging.disable_progress_bar()
logging.set_verbosity_error()

LOADERS = {"llama": AutoModelForCausalLM, "bert": AutoModelForSequenceClassification, "gpt2": AutoModelForCausalLM, "efficientnet": AutoModelForImageClassification}
# Holes, each explained.
NOT_IN_PEFT = {"adapter": "PEFT has no bottleneck adapters"}
NOT_LOADED = {("quantize (QLoRA)", model): "loads, over another base: PEFT is given the float weights" for model in FAMILIES}
NOT_MERGED = {"adapter": "not linear", "prefix": "no weights", "prefix (projection)": "no weights", "prompt": "no weights", "quantize (QLoRA)": "the base is packed"}


def losses(name):
    return [event["loss"] for event in place.events(name, "step_end")]


def result(name):
    """Bytes of what the run made, and where."""
    for kind in ("adapter", "model"):
        folder = place / "runs" / name / kind
        if folder.exists():
            return (folder / f"{'adapter_' if kind == 'adapter' else ''}model.safetensors").read_bytes(), folder, kind
    sys.exit(f"{name} made nothing")


def held_out_loss(model, kind):
    """Mean over the targets of the validation split, computed by transformers."""
    import h5py
    with h5py.File(place / f"{kind}.h5") as file:
        split = file["validation"]
        if kind == "images":
            pixels, labels = torch.tensor(split["pixels"][:]).permute(0, 3, 1, 2).expand(-1, 3, -1, -1), torch.tensor(split["label"][:])
            with torch.no_grad():
                logits = model(pixel_values=(pixels / 255 - 0.5) / 0.25).logits
            return torch.nn.functional.cross_entropy(logits, labels).item()
        offsets, tokens = split["tokens.offsets"][:], torch.tensor(split["tokens"][:].astype("int64"))
        marks = split["label"][:] if "label" in split else split["loss_mask"][:]
    total = count = 0
    with torch.no_grad():
        for row, (a, b) in enumerate(zip(offsets, offsets[1:])):
            logits = model(input_ids=tokens[None, a:b]).logits[0]
            if kind == "classification":
                targets, logits = torch.tensor([int(marks[row])]), logits[None]
            else:
                targets, logits = torch.where(torch.tensor(marks[a + 1 : b]) == 1, tokens[a + 1 : b], -100), logits[-(b - a) : -1]
            total += torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100, reduction="sum").item()
            count += int((targets != -100).sum())
    return total / count


def loads(name, strategy, family, kind, folder, form, path):
    """In PEFT, or as a whole model in transformers; it computes the loss that the run measured."""
    if form == "adapter" and strategy in NOT_IN_PEFT:
        return NOT_IN_PEFT[strategy]
    loader = LOADERS[family]
    if form == "adapter":
        options = {} if loader is AutoModelForCausalLM else {"num_labels": 2}
        model = PeftModel.from_pretrained(loader.from_pretrained(path, **options), folder)
    else:
        model = loader.from_pretrained(folder)
    if (strategy, family) in NOT_LOADED:
        return NOT_LOADED[strategy, family]
    if kind != "preference":
        computes(model, name, kind)
    return "yes" if form == "adapter" else "yes, whole"


def computes(model, name, kind):
    """The loss that the run measured."""
    measured = json.loads((place / "runs" / name / "evaluation.json").read_text())["tuned"]["loss"]
    theirs = held_out_loss(model.eval(), kind)
    check(abs(measured - theirs) < 1e-4 * measured, f"{name}: transformers computes {theirs}, the run measured {measured}")


def merged(name, strategy, family, kind):
    if strategy in NOT_MERGED:
        said = place.run(program, "export", f"runs/{name}", "--to", f"{name}-merged", "--merge", expect=2)
        check("cannot be merged" in said and not (place / f"{name}-merged").exists(), f"{name}: refuses to merge: {said}")
        return "no: " + NOT_MERGED[strategy]
    place.run(program, "export", f"runs/{name}", "--to", f"{name}-merged", "--merge")
    if kind != "preference":
        computes(LOADERS[family].from_pretrained(place / f"{name}-merged"), name, kind)
    return "yes"


def row(strategy, family):
    if not is_served(strategy, family):
        return [strategy, family, "no: " + NOT_SERVED[strategy], "", "", "", "", "", ""]
    path, kind = FAMILIES[family][0], kind_of(strategy, family)
    name = write_run(place, strategy, family)
    place.run(program, "train", f"{name}.toml")
    check(len(losses(name)) == 4, f"{name}: four steps are logged")

    place.run(*over_ranks(2, program, "train", f"{name}.toml", f"name={name}-2"))
    for ours, theirs in zip(losses(name), losses(f"{name}-2"), strict=True):
        check(abs(ours - theirs) < 1e-4 * abs(ours), f"{name}: two ranks give the losses of one: {losses(name)} {losses(f'{name}-2')}")

    for ranks in (1, 4):
        place.run(*over_ranks(ranks, program, "train", f"{name}.toml", f"name={name}-exact-{ranks}", "parallel.reproducible=true", "parallel.shard=weights"))
    alone, sharded = f"{name}-exact-1", f"{name}-exact-4"
    check(losses(alone) == losses(sharded) and result(alone)[0] == result(sharded)[0], f"{name}: four ranks that share out optimizer state and weights have the bits of one")

    shutil.copytree(place / "runs" / name, place / "runs" / f"{name}-again")
    shutil.rmtree(place / "runs" / f"{name}-again/checkpoints/step-000004")
    place.run(program, "train", f"{name}.toml", f"name={name}-again", "--resume")
    content, folder, form = result(name)
    check(content == result(f"{name}-again")[0], f"{name}: resumed at step 2, the same bits")
    return [strategy, family, "yes", "yes", "yes", "yes", form, loads(name, strategy, family, kind, folder, form, place / path), merged(name, strategy, family, kind)]


def table(rows):
    head = ["strategy", "model", "trained", "on 2 ranks", "sharded over 4, same bits", "resumed, same bits", "saved as", "loaded by PEFT or transformers, same loss", "merged"]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows]) + "\n"


def an_adapter_is_gone_on_from_over_its_own_base_alone():
    adapter = "strategy.lora.adapter=runs/lora-llama/adapter"
    place.run(program, "train", "lora-llama.toml", "name=onward", adapter)
    tuned = json.loads((place / "runs/lora-llama/evaluation.json").read_text())["tuned"]["loss"]
    onward = json.loads((place / "runs/onward/evaluation.json").read_text())
    check(onward["tuned"]["loss"] < tuned < onward["base"]["loss"], f"it goes on from {tuned}, and the base is still the base: {onward}")
    make_model(place / "other", initializer_range=0.03)
    said = place.run(program, "train", "lora-llama.toml", "name=elsewhere", "model.path=other", adapter, expect=2)
    check("is an adapter for another base model" in said and not (place / "runs/elsewhere").exists(), f"another base is refused: {said}")


def a_teacher_may_be_of_another_architecture_but_not_of_another_vocabulary():
    place.run(program, "train", "distill-llama.toml", "name=from-gpt2", "strategy.distill.teacher=gpt2")
    check(losses("from-gpt2") != losses("distill-llama"), "another teacher teaches something else")
    said = place.run(program, "train", "distill-llama.toml", "name=from-bert", "strategy.distill.teacher=classifier", expect=2)
    check("classifier: has a different tokenizer than model" in said, f"another vocabulary is refused: {said}")


def a_prompt_is_refused_where_positions_are_learned():
    said = place.run(program, "train", "prompt-llama.toml", "name=refused", "model.plugin=gpt2", "model.path=gpt2", expect=2)
    check("strategy 'prompt' does not support gpt2 models" in said, f"PEFT would add positions to the prompt too: {said}")


def stored_logits_are_those_of_their_teacher_and_data():
    stored = (place / "model-logits.safetensors").read_bytes()
    place.run(*over_ranks(2, program, "train", "distill-stored-llama.toml", "name=by-two", "strategy.distill.stored=by-two.safetensors"))
    check((place / "by-two.safetensors").read_bytes() == stored, "two ranks store the bytes of one")
    place.run(program, "train", "distill-stored-llama.toml", "name=without", 'strategy.distill.teacher=""')
    check(losses("without") == losses("distill-stored-llama"), "the teacher itself is not needed again")
    for override, what in (("strategy.distill.teacher=gpt2", "teacher (sha256)"), ("strategy.distill.top=8", "top (16, but here 8)"),
                           ("dataset.path=fewer.h5", "training data (sha256)")):
        said = place.run(program, "train", "distill-stored-llama.toml", "name=refused", override, expect=2)
        check(f"model-logits.safetensors: does not match this run's {what}" in said, f"{what} is refused: {said}")
    said = place.run(program, "check", "distill-stored-llama.toml", "strategy.distill.stored=checked.safetensors", "--measure")
    check("is in order" in said and not (place / "checked.safetensors").exists(), f"a check stores nothing: {said}")


def what_a_run_compares_with_is_found_again_when_it_is_evaluated():
    trained = json.loads((place / "runs/dpo-full-llama/evaluation.json").read_text())
    place.run(program, "evaluate", "runs/dpo-full-llama")
    again = json.loads((place / "runs/dpo-full-llama/evaluation.json").read_text())
    check(abs(again["tuned"]["loss"] - trained["tuned"]["loss"]) < 1e-5 and abs(again["base"]["loss"] - 0.6931) < 1e-3, f"DPO over full: {trained}, evaluated again {again}")


make_inputs(place, program)
place.run(program, "prepare", "instruction.toml", "output=fewer.h5", "split.validation=0.5")
rows = []
for strategy, family in combinations():
    rows.append(row(strategy, family))
    print(" | ".join(rows[-1]), flush=True)
an_adapter_is_gone_on_from_over_its_own_base_alone()
a_teacher_may_be_of_another_architecture_but_not_of_another_vocabulary()
a_prompt_is_refused_where_positions_are_learned()
stored_logits_are_those_of_their_teacher_and_data()
what_a_run_compares_with_is_found_again_when_it_is_evaluated()
seen = table(rows)
(place / "table.md").write_text(seen)
check(seen in (source / "docs/strategies.md").read_text(), f"docs/strategies.md holds what was seen, which lies in {place / 'table.md'}")
