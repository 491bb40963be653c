"""What `parallel.reproducible = true` costs: tokens per second on 2 ranks with it and without, alternating, SmolLM2 with LoRA on FOLDOC.

    reproducible_bench.py BUILD_FOLDER

Prints the medians and their ratio, and checks that the losses of both agree.
"""
import json
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import check, environment, over_ranks

build, root = Path(sys.argv[1]).resolve(), Path(__file__).resolve().parent.parent.parent
STEPS, ROUNDS = 6, 3
OPTIONS = (f"train.steps={STEPS}", "train.global_batch=8", "train.micro_batch=2", "evaluate.every=0", "evaluate.samples=2", f"output={build}/tests/bench")


def steps(reproducible):
    name = f"reproducible-{reproducible}".lower()
    command = over_ranks(2, build / "attune", "train", "datasets/foldoc/quickstart.toml", f"name={name}", f"parallel.reproducible={str(reproducible).lower()}", *OPTIONS, "--overwrite")
    subprocess.run([str(part) for part in command], cwd=root, env=environment, check=True, capture_output=True)
    lines = (build / "tests/bench" / name / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == "step_end"]


speeds, losses = {False: [], True: []}, {}
for _ in range(ROUNDS):
    for reproducible in speeds:
        done = steps(reproducible)
        speeds[reproducible].append(statistics.median(step["tokens_per_second"] for step in done[1:]))
        losses[reproducible] = [step["loss"] for step in done]
for ours, theirs in zip(losses[True], losses[False], strict=True):
    check(abs(ours - theirs) <= 1e-4 * abs(theirs), f"the same losses up to rounding: {ours} {theirs}")
fast, exact = statistics.median(speeds[False]), statistics.median(speeds[True])
print(f"{fast:.0f} tokens/s; reproducible {exact:.0f} tokens/s, {exact / fast:.2f} of it (medians of {ROUNDS} runs of {STEPS} steps, 2 ranks)")
