"""Samples that teach nothing are left out of the loss, counted and told; a padded teacher is compared over the shared outputs.

Usage: left_out_test.py PROGRAM FOLDER
"""
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import RUN, Workplace, check, make_model, make_recipe

program = Path(sys.argv[1]).resolve()
place = Workplace(sys.argv[2])
make_model(place / "model", max_position_embeddings=256)

# ---- Answers that dataset.max_length cuts away whole
pairs = [{"prompt": f"What is {i} and {i}?" + (" Tell" + " me" * 30 if i % 4 == 0 else ""), "chosen": f"It is {2 * i}.", "rejected": "No."} for i in range(40)]
(place / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
(place / "pairs.toml").write_text('name = "pairs"\nkind = "preference"\nlicence = "CC0-1.0"\noutput = "pairs.h5"\ntokenizer = "model"\ntemplate = "plain"\n[[source]]\npath = "pairs.jsonl"\n'
                                  'layout = "preference"\n[split]\nvalidation = 0.25\n[clean]\ndeduplicate = "none"\n')
place.run(program, "prepare", "pairs.toml")


def train(name, strategies, kind, data, *overrides, expect=0):
    run = RUN.replace('plugin = "instruction"', f'plugin = "{kind}"').replace("sums.h5", data).replace('[strategy]\nplugin = "lora"\nrank = 4\n', strategies)
    (place / f"{name}.toml").write_text(run.replace('name = "run"', f'name = "{name}"'))
    return place.run(program, "train", f"{name}.toml", *overrides, expect=expect)


LORA = '[[strategy]]\nplugin = "lora"\nrank = 4\n'
for name, loss in {"dpo": 'plugin = "dpo"', "ipo": 'plugin = "dpo"\nform = "ipo"', "orpo": 'plugin = "orpo"', "kto": 'plugin = "kto"'}.items():
    said = train(name, f"{LORA}[[strategy]]\n{loss}\n", "preference", "pairs.h5", "dataset.max_length=70")
    steps, end = place.events(name, "step_end"), place.events(name, "run_end")[0]
    check(len(steps) == 6 and all(math.isfinite(step["loss"]) and math.isfinite(step["grad_norm"]) for step in steps), f"{name}: finite: {steps}")
    left_out = end["samples_without_target"]
    check(0 < left_out < 48, f"{name}: some of the 48 samples are left out: {left_out}")
    check(said.count("dataset.max_length") >= 2 and f"warning: {left_out} of the 48 training samples" in said, f"{name}: it is told: {said}")
    check("validation samples have no target" in said, f"{name}: of the validation too: {said}")
said = train("none", f'{LORA}[[strategy]]\nplugin = "dpo"\n', "preference", "pairs.h5", "dataset.max_length=3", expect=2)
check("dataset.max_length" in said, f"nothing is left: {said}")

# ---- A teacher with the same tokenizer and a padded embedding
make_recipe(place)
place.run(program, "prepare", "sums.toml")
make_model(place / "padded", max_position_embeddings=256, vocab_size=320)
make_model(place / "narrow", max_position_embeddings=256, vocab_size=200)
FULL = '[[strategy]]\nplugin = "full"\n[[strategy]]\nplugin = "distill"\ntop = 400\nteacher = '
for name, more in {"live": "", "stored": 'stored = "logits.safetensors"\n'}.items():
    train(name, f'{FULL}"padded"\n{more}', "instruction", "sums.h5")
live, stored = ([step["loss"] for step in place.events(name, "step_end")] for name in ("live", "stored"))
check(all(math.isfinite(loss) for loss in live), f"the shared outputs are compared: {live}")
check(max(abs(a - b) for a, b in zip(live, stored)) < 1e-4, f"live and stored are alike: {live} {stored}")
said = train("other", f'{FULL}"narrow"\n', "instruction", "sums.h5", expect=2)
check("narrow" in said and "200" in said and "257" in said, f"another vocabulary is told: {said}")
