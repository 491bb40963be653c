"""What parallel.shard saves and costs: SmolLM2-135M, all weights in float32 with AdamW, FOLDOC, on 4 ranks.

    shard_bench.py BUILD_FOLDER [ROUNDS]

For every stage: bytes per trained parameter and rank as the formulas of docs/scale.md have them and as measured; the most that a rank held; bytes
sent per step, as counted and by the formula; tokens per second, alternating between the stages. Checks bytes exactly, and that losses agree.
"""
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import bytes_in, check, environment, over_ranks

build, root = Path(sys.argv[1]).resolve(), Path(__file__).resolve().parent.parent.parent
program, folder = build / "attune", build / "tests/bench"
RANKS, STEPS, PASSES, ROUNDS = 4, 4, 2, int(sys.argv[2]) if len(sys.argv) > 2 else 3
STAGES = {"none": (), "optimizer": ("parallel.shard=optimizer",), "gradients": ("parallel.shard=gradients",), "gradients, 2 copies": ("parallel.shard=gradients", "parallel.replicas=2"), "weights": ("parallel.shard=weights",)}
# Bytes per parameter: what is whole, and what the ranks of a copy share out.
HELD = {"none": (16, 0), "optimizer": (8, 8), "gradients": (4, 12), "gradients, 2 copies": (4, 12), "weights": (0, 16)}
RUN = f"""
[model]
plugin = "llama"
path = "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf"
dtype = "float32"
[dataset]
plugin = "instruction"
path = "data/foldoc.h5"
max_length = 256
[strategy]
plugin = "full"
[train]
steps = {STEPS}
global_batch = {RANKS * PASSES}
micro_batch = 1
learning_rate = 1e-5
[evaluate]
samples = 1
[parallel]
threads = 1
"""


def copies(stage):
    return 2 if "copies" in stage else 1


def command(stage, *parts):
    name = "shard-" + re.sub("[^a-z0-9]+", "-", stage)
    return [str(part) for part in over_ranks(RANKS, *parts, folder / "shard.toml", f"name={name}", f"output={folder}", *STAGES[stage])], name


def run(stage):
    """Events of its steps, what ranks sent by kind, and the most bytes that a rank held, on average: what they hold once counts once."""
    kilobytes = folder / "peaks"
    kilobytes.unlink(missing_ok=True)
    parts, name = command(stage, "/usr/bin/time", "-a", "-o", kilobytes, "-f", "%M", program, "train", "--overwrite")
    done = subprocess.run(parts, cwd=root, env=environment, capture_output=True, text=True)
    peaks = [int(line) * 1024 for line in kilobytes.read_text().splitlines()]
    check(done.returncode == 0 and len(peaks) == RANKS, done.stdout + done.stderr)
    events = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    record = json.loads((folder / name / "record.json").read_text())
    sent = {kind: each["bytes"] for kind, each in record["communication"].items()}
    shared = record["memory"][0]["shared"]
    return [event for event in events if event["event"] == "step_end"], sent, statistics.mean(peaks) - shared * (RANKS - 1) / RANKS


def planned(stage):
    parts, _ = command(stage, program, "check")
    said = subprocess.run(parts, cwd=root, env=environment, capture_output=True, text=True, check=True).stdout
    return bytes_in(said.split("memory per node")[1]) / RANKS if "memory per node" in said else bytes_in(said.split("memory per rank")[1])


if not (root / "data/foldoc.h5").exists():
    subprocess.run([program, "prepare", "datasets/foldoc/recipe.toml"], cwd=root, env=environment, check=True)
folder.mkdir(parents=True, exist_ok=True)
(folder / "shard.toml").write_text(RUN)
found = {stage: [] for stage in STAGES}
for _ in range(ROUNDS):
    for stage in STAGES:
        found[stage].append(run(stage))

P = 134515008  # parameters of SmolLM2-135M
WEIGHTS = GRADIENTS = 4 * P  # bytes


def held_by_formula(stage):
    whole, divided = HELD[stage]
    return P * (whole + divided * copies(stage) / RANKS)


def median(figures):
    return statistics.median(figures)


peaks = {stage: median(peak for *_, peak in runs) for stage, runs in found.items()}
speeds = {stage: median(median(step["tokens_per_second"] for step in steps[1:]) for steps, *_ in runs) for stage, runs in found.items()}
print("| parallel.shard | bytes per parameter | planned | held at most | saved by formula | saved | sent per rank and step | tokens/s, of none |")
print("|---|---|---|---|---|---|---|---|")
for stage, runs in found.items():
    steps, sent, _ = runs[0]
    for (ours, theirs) in zip(steps, found["none"][0][0], strict=True):
        check(abs(ours["loss"] - theirs["loss"]) < 1e-5 * theirs["loss"], f"{stage} trains as none does: {ours} {theirs}")
    passes = 1
    if stage != "none":
        passes = sent["reduce_scatter"] / (RANKS * STEPS * GRADIENTS)  # some rank has more micro-batches than others in some steps: whole passes of all
        is_possible = passes == 1 if stage == "optimizer" else PASSES <= passes <= PASSES + 1
        check(is_possible and (STEPS * passes).is_integer(), f"{stage}: {passes} passes scatter gradients per step")
        gathered = 0 if stage == "weights" else STEPS * copies(stage) * WEIGHTS
        check(0 <= sent["all_gather"] - gathered < 1e-4 * STEPS * WEIGHTS, f"{stage}: {sent}, and by the formula {gathered} of weights are gathered")
    saved, by_formula = peaks["none"] - peaks[stage], held_by_formula("none") - held_by_formula(stage)
    parts = RANKS / copies(stage)
    ring = 2 * GRADIENTS * (RANKS - 1) / RANKS if stage == "none" else (passes * GRADIENTS + (0 if stage == "weights" else WEIGHTS)) * (parts - 1) / parts + 2 * GRADIENTS / parts * (copies(stage) - 1) / copies(stage)
    mebibytes = [planned(stage), peaks[stage], by_formula, saved, ring]
    print(f"| {stage} | {held_by_formula(stage) / P:.1f} |", " | ".join(f"{size / 2**20:.0f} MiB" for size in mebibytes), f"| {speeds[stage]:.0f}, {speeds[stage] / speeds['none']:.2f} |", flush=True)
