"""How the time of a step grows with the length of samples, the batch, the ranks and the model, beside what `attune check` foretells.

    cost_bench.py BUILD_FOLDER

Prints a table; fails where a step takes a third longer or shorter than was said.
"""
import json
import random
import re
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, environment, make_model, over_ranks, write_recipe

build = Path(sys.argv[1]).resolve()
program = build / "attune"
place = Workplace(build / "tests" / "cost_bench")
SIZES = {"11 M": (320, 864, 8), "40 M": (512, 1408, 12), "135 M": (768, 2048, 19)}  # width, inner width, blocks
USUAL = dict(size="40 M", strategy="lora", length=128, batch=8, ranks=1)
VARIED = [{}, *({"length": length} for length in (32, 512, 1024)), *({"batch": batch} for batch in (1, 32)), {"size": "11 M"}, {"size": "135 M"}, {"ranks": 2},
          {"strategy": "full"}, {"strategy": "full", "size": "135 M"}]


def make_data(length):
    """Answers of half to one and a half times that many tokens: a byte is a token."""
    letters = random.Random(length)
    texts = ["".join(letters.choices("abcdefgh ", k=length // 2 + i * length // 40)) for i in range(44)]
    (place / f"length{length}.jsonl").write_text("".join(json.dumps({"prompt": "a", "response": text}) + "\n" for text in texts))
    write_recipe(place, f"length{length}", validation=0.1)
    place.run(program, "prepare", f"length{length}.toml")


def run_file(size, strategy, length, batch, ranks):
    (place / "run.toml").write_text(f"""name = "run"
[model]
plugin = "llama"
path = "{folder(size)}"
[dataset]
plugin = "instruction"
path = "length{length}.h5"
[strategy]
plugin = "{strategy}"
[train]
steps = 6
global_batch = {batch}
micro_batch = {max(1, batch // ranks)}
learning_rate = 1e-4
[evaluate]
samples = 1
[checkpoint]
every = 1000
""")
    environment["OMP_NUM_THREADS"] = str(2 // ranks)


def folder(size):
    return "model" if size == "40 M" else "model" + size.replace(" ", "")


for size, (width, inner, blocks) in SIZES.items():
    make_model(place / folder(size), hidden_size=width, intermediate_size=inner, num_hidden_layers=blocks, num_attention_heads=width // 64, num_key_value_heads=width // 64, max_position_embeddings=2048)
for length in (32, 128, 512, 1024):
    make_data(length)
print("| parameters | strategy | tokens a sample | samples a step | ranks | said, s a step | took, s | took / said |\n|---|---|---|---|---|---|---|---|")
ratios = []
for varied in VARIED:
    case = USUAL | varied
    run_file(**case)
    said = float(re.search(r"([\d.e+-]+) s per step", place.run(*over_ranks(case["ranks"], program, "check", "run.toml", "--measure"), timeout=900))[1])
    place.run(*over_ranks(case["ranks"], program, "train", "run.toml", "--overwrite"), timeout=900)
    ends = [step["unix_seconds"] for step in place.events("run", "step_end")]
    took = statistics.median(b - a for a, b in zip(ends, ends[1:]))
    ratios.append(took / said)
    print("| " + " | ".join(map(str, case.values())) + f" | {said:.3g} | {took:.3g} | {ratios[-1]:.2f} |", flush=True)
sys.exit(any(not 0.75 < ratio < 1.33 for ratio in ratios))
