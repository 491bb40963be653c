"""Peak memory: what `attune check` says, what the run takes, and what transformers + peft take on the same work, each in a process of its own.

    memory_bench.py BUILD_FOLDER

SmolLM2-135M on 4 x 256 dense tokens in float32 (every token a target), trained in full and with LoRA of rank 16 on all linear layers; and the head of
MiniLM on the VADER snippets. Checks that the estimate is within 15 % of the peak and that computing blocks again takes less; says whether LoRA takes at most half of what the peer takes.
"""
import json
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check, environment

build, root = Path(sys.argv[1]).resolve(), Path(__file__).resolve().parent.parent.parent
place = Workplace(build / "tests" / "memory_bench")
program = build / "attune"
environment |= {"OMP_NUM_THREADS": "2"}
MODEL = root / "models/smollm2-135m"

PEER = """
import sys, torch
from transformers import AutoModelForCausalLM
from peft import LoraConfig, get_peft_model
folder, file, kind = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
if kind == "lora":
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear"))
# Reading this format needs more memory than training does: only what comes after it counts.
open("/proc/self/clear_refs", "w").write("5")
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
torch.manual_seed(0)
tokens = torch.randint(1000, 40000, (4, 256))
for step in range(3):
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1])
"""


def peak_of(*command):
    """MiB that the process had resident at most, by the kernel's count."""
    said = place.run("/usr/bin/time", "-f", "peak %M", *command, timeout=900)
    return int(re.search(r"peak (\d+)", said)[1]) / 1024, said


def estimate_of(run, *more):
    said = place.run(program, "check", run, *more, "--measure", timeout=600)
    number, unit = re.search(r"memory per rank\s+([\d.]+) (MiB|GiB) at most", said).groups()
    return float(number) * (1024 if unit == "GiB" else 1)


def prepare():
    text = " ".join(line for line in (root / "data/foldoc/train.jsonl").read_text().splitlines()[:3000])
    (place / "text.jsonl").write_text(json.dumps({"text": text[:200000]}) + "\n" + json.dumps({"text": text[200000:204000]}) + "\n" * 1)
    (place / "corpus.toml").write_text(f"""
name = "corpus"
kind = "corpus"
licence = "GFDL-1.1-or-later"
output = "corpus.h5"
tokenizer = "{MODEL}"
window = 256
[[source]]
path = "text.jsonl"
fields = {{ text = "text" }}
[split]
validation = 0.5
""")
    place.run(program, "prepare", "corpus.toml")
    place.run(program, "prepare", root / "datasets/vader/recipe.toml", f"output={place / 'vader.h5'}")


def run_file(name, model, plugin, kind, data, strategy, batch):
    (place / f"{name}.toml").write_text(f"""
name = "{name}"
[model]
plugin = "{plugin}"
path = "{model}"
[dataset]
plugin = "{kind}"
path = "{data}"
{strategy}
[train]
steps = 3
global_batch = {batch}
micro_batch = {batch}
learning_rate = 1e-4
[evaluate]
samples = 1
[checkpoint]
every = 2  # the estimate counts the copy that a checkpoint is written from
""")


prepare()
LORA = '[strategy]\nplugin = "lora"\nrank = 16'
run_file("full", MODEL, "llama", "corpus", "corpus.h5", '[strategy]\nplugin = "full"', 4)
run_file("lora", MODEL, "llama", "corpus", "corpus.h5", LORA, 4)
run_file("probe", root / "models/minilm", "bert", "classification", "vader.h5", '[strategy]\nplugin = "linear_probe"', 32)
peaks = {}
for name, more in (("full", ()), ("lora", ()), ("probe", ()), ("lora", ("train.recompute=true", "name=lora-recompute"))):
    label = name + (" recompute" if more else "")
    estimate = estimate_of(f"{name}.toml", *more)
    peaks[label], _ = peak_of(program, "train", f"{name}.toml", *more)
    print(f"{label}: estimated {estimate:.0f} MiB, took {peaks[label]:.0f} MiB, {estimate / peaks[label]:.2f}", flush=True)
    check(abs(estimate / peaks[label] - 1) <= 0.15, f"{label}: the estimate is within 15 % of the peak")
for kind in ("lora", "full"):
    peer = int(subprocess.run([sys.executable, "-c", PEER, str(MODEL), "SmolLM2-135M-Instruct.Q4_1.gguf", kind], check=True, capture_output=True, text=True, env=environment).stdout) / 1024
    print(f"{kind}: attune {peaks[kind]:.0f} MiB, transformers + peft {peer:.0f} MiB, {peaks[kind] / peer:.2f} of it", flush=True)
    if kind == "lora":
        print(f"the goal, half of what the peer takes: {'reached' if peaks[kind] <= 0.5 * peer else 'not reached'}", flush=True)
check(peaks["lora recompute"] < peaks["lora"], "computing blocks again takes less")
