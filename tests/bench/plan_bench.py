"""How well `attune plan` predicts runs on this machine: SmolLM2-135M, FOLDOC, on 1 to 4 ranks.

    plan_bench.py BUILD_FOLDER [STEPS]

Measures the machine with `attune doctor --write`, plans, runs, and prints for every number of ranks and stage what was planned and what was
measured: bytes of a step, the most that a rank held (on average, what they share counted once), seconds of a step (from the median of tokens per second). Fails where bytes differ, memory
differs by more than 8 %, or the median of all times by more than 20 %.
"""
import json
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import check, environment, over_ranks

build, root = Path(sys.argv[1]).resolve(), Path(__file__).resolve().parent.parent.parent
program, folder = build / "attune", build / "tests/bench"
STEPS = int(sys.argv[2]) if len(sys.argv) > 2 else 6
GRADIENTS = WEIGHTS = 4 * 134515008  # bytes of SmolLM2-135M
CASES = [(1, "none"), (2, "none"), (2, "gradients"), (3, "optimizer"), (4, "none"), (4, "optimizer"), (4, "gradients"), (4, "weights")]
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
global_batch = 8
micro_batch = 1
learning_rate = 1e-5
[evaluate]
samples = 1
[checkpoint]
every = {STEPS // 2}
keep = 1
[parallel]
threads = 1
"""


def run(ranks, shard):
    name, kilobytes = f"plan-{ranks}-{shard}", folder / "peaks"
    kilobytes.unlink(missing_ok=True)
    train = ["/usr/bin/time", "-a", "-o", kilobytes, "-f", "%M", program, "train", "--overwrite", folder / "plan.toml", f"name={name}", f"output={folder}"]
    command = [str(part) for part in over_ranks(ranks, *train, f"parallel.shard={shard}")]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    check(done.returncode == 0, done.stdout + done.stderr)
    peaks = [int(line) * 1024 for line in kilobytes.read_text().splitlines()]
    record = json.loads((folder / name / "record.json").read_text())
    events = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step_end"]
    shared = record["memory"][0]["shared"]
    peak = statistics.mean(peaks) - shared * (ranks - 1) / ranks
    calls = {kind: each["bytes"] for kind, each in record.get("communication", {}).items()}
    # The first step also gets its memory from the kernel, and a checkpoint is written beside another.
    speed = statistics.median(event["tokens_per_second"] for event in steps[1:])
    return peak, statistics.mean(event["tokens"] for event in steps) / speed, calls


def sent(ranks, shard, calls):
    """Bytes of a rank and step, by the ring's formula, from what was counted: gradients and weights alone."""
    if ranks == 1:
        return 0
    ring = (ranks - 1) / ranks
    if shard == "none":  # two more sums, of zeros, settle the buckets
        sums = round(calls["all_reduce"] / ranks / GRADIENTS) - 2
        return 2 * ring * GRADIENTS * sums / STEPS
    gradients = round(calls["reduce_scatter"] / ranks / GRADIENTS) * GRADIENTS
    weights = 0 if shard == "weights" else STEPS * WEIGHTS
    return ring * (gradients + weights) / STEPS


if not (root / "data/foldoc.h5").exists():
    subprocess.run([program, "prepare", "datasets/foldoc/recipe.toml"], cwd=root, env=environment, check=True)
folder.mkdir(parents=True, exist_ok=True)
(folder / "plan.toml").write_text(RUN)
machine = folder / "machine.toml"
subprocess.run([str(part) for part in over_ranks(4, program, "doctor", "--output", folder, "--write", machine)], env=environment, check=True, capture_output=True)
plan = [program, "plan", folder / "plan.toml", "name=plan", f"output={folder}", "--machine", machine, "--ranks", "1,2,3,4", "--json"]
said = subprocess.run([str(part) for part in plan], cwd=root, env=environment, check=True, capture_output=True, text=True).stdout
plans = {(each["ranks"], each["shard"]): each for each in json.loads(said)["plans"]}

print("| ranks | shard | sent | planned | held | planned | ratio | seconds of a step | planned | ratio |")
print("|---|---|---|---|---|---|---|---|---|---|")
wrong, ratios = [], []
for case in CASES:
    peak, step, calls = run(*case)
    wire = [sent(*case, calls), plans[case]["sent"]]
    # of a node, so that what its ranks share counts once
    held = [peak, plans[case]["memory"]["node"] / case[0]]
    took = [step, plans[case]["seconds"]["step"]]
    ratios.append(took[1] / took[0])
    print("|", case[0], "|", case[1], "|", " | ".join(f"{size / 2**20:.0f} MiB" for size in wire), "|", " | ".join(f"{size / 2**20:.0f} MiB" for size in held), f"| {held[1] / held[0]:.3f} | {took[0]:.2f} | {took[1]:.2f} | {ratios[-1]:.2f} |", flush=True)
    if abs(wire[1] - wire[0]) > 1:
        wrong.append(f"{case} sends {wire[0]} bytes a step, planned were {wire[1]}")
    if not 0.92 < held[1] / held[0] < 1.08:
        wrong.append(f"{case} held {held[0]} bytes, planned were {held[1]}")
check(not wrong, "; ".join(wrong))
check(0.8 < statistics.median(ratios) < 1.2, f"times, planned to measured: {ratios}")
