"""Attune on a GPU beside transformers and peft on the same one: parity, memory, tokens per second.

    measure.py BUILD_FOLDER OUT_FOLDER DEVICE        DEVICE: cuda; sim or cpu for a rehearsal with small models

Every part stands alone: one that fails is reported, and the others run. Writes OUT_FOLDER/results.json and prints a table.
"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import torch

tests = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(tests / "support"))
from tiny import Workplace, bytes_in, make_model

build, out, device = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), sys.argv[3]
theirs = "cuda" if device == "cuda" else "cpu"
program = build / "attune"
is_rehearsal = device != "cuda"

# Shapes of SmolLM2-135M and of Llama 3.2 1B (their config.json), with random weights.
MODELS = {
    "135M": dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, vocab_size=49152),
    "1B": dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8, vocab_size=128256),
}
SMALL = {"small": dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=1024)}
LENGTH, BATCH, STEPS, WARM = (128, 2, 6, 2) if is_rehearsal else (1024, 8, 24, 8)
LORA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Utilisation:
    """Of the GPU, sampled while a block runs; None where nvidia-smi cannot tell."""

    def __enter__(self):
        self.samples, self.ends = [], threading.Event()
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()
        return self

    def sample(self):
        while theirs == "cuda" and shutil.which("nvidia-smi") and not self.ends.wait(0.3):
            said = subprocess.run(["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i", "0"], capture_output=True, text=True).stdout
            if said.strip().isdigit():
                self.samples.append(int(said))

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join()

    def median_of_last_half(self):
        return statistics.median(self.samples[len(self.samples) // 2 :]) if self.samples else None


class Case:
    """A model and a data file of samples of one length."""

    def __init__(self, place, name):
        self.place, self.name = place, name

    def prepare(self, sizes):
        place, name = self.place, self.name
        make_model(place / name, **sizes, max_position_embeddings=2 * LENGTH, tie_word_embeddings=True, dtype="bfloat16")
        text = "".join(file.read_text() for file in sorted((tests.parent / "docs").glob("*.md")))
        text = "".join(letter for letter in text if letter.isascii())
        samples = [text[i : i + LENGTH - 1] for i in range(0, (BATCH * 8) * LENGTH, LENGTH)]
        (place / "text.jsonl").write_text("".join(json.dumps({"text": sample}) + "\n" for sample in samples))
        (place / f"{name}-data.toml").write_text(f'name = "{name}"\nkind = "corpus"\nlicence = "Apache-2.0"\noutput = "{name}.h5"\ntokenizer = "{name}"\n'
                                                 f'[[source]]\npath = "text.jsonl"\n[clean]\ndeduplicate = "none"\n[split]\nvalidation = 0.1\n')
        place.run(program, "prepare", f"{name}-data.toml")
        return {"samples": len(samples)}

    def attune(self, method):
        run = f"{self.name}-{method}"
        options = {"lora": "rank = 16\nalpha = 32\n", "full": ""}[method]
        dtype = {"lora": 'dtype = "bfloat16"\n', "full": ""}[method]
        precision = {"lora": "", "full": 'precision = "bfloat16"\n'}[method]
        plugins = f'plugins = ["{build}/tests/simdev/sim.so"]\n' if device == "sim" else ""
        (self.place / f"{run}.toml").write_text(
            f'{plugins}name = "{run}"\n[model]\nplugin = "llama"\npath = "{self.name}"\n{dtype}[dataset]\nplugin = "corpus"\npath = "{self.name}.h5"\n'
            f'[strategy]\nplugin = "{method}"\n{options}[train]\nsteps = {STEPS}\nglobal_batch = {BATCH}\nmicro_batch = {BATCH}\n{precision}learning_rate = 1e-4\n'
            f'[evaluate]\nsamples = 2\n[checkpoint]\nevery = 0\n[parallel]\ndevice = "{device}"\n')
        said = self.place.run(program, "check", f"{run}.toml", timeout=300)
        planned = bytes_in(said.split("memory per rank")[1].split("about")[1])
        shutil.rmtree(self.place / "runs" / run, ignore_errors=True)
        with Utilisation() as used:
            begun = time.monotonic()
            self.place.run(program, "train", f"{run}.toml", timeout=400)
        steps = [event for event in self.place.events(run, "step_end")]
        held = json.loads((self.place / "runs" / run / "record.json").read_text())["placement"][0].get("device_memory")
        return {"tokens_per_second": statistics.median(step["tokens_per_second"] for step in steps[WARM:]), "loss": [steps[0]["loss"], steps[-1]["loss"]],
                "memory": held, "planned_memory": planned, "gpu_busy_percent": used.median_of_last_half(), "seconds": time.monotonic() - begun}

    def peers(self, method):
        """A plain loop of transformers and peft over batches of the same shape, in mixed precision. Its time is that of whole steps, and Attune's leaves out
        what callbacks and the log take; its memory is that of the steps alone, and Attune's is that of the whole run."""
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        kernel = "sdpa"
        if theirs == "cuda":
            try:
                import flash_attn  # noqa: F401
                kernel = "flash_attention_2"
            except ImportError:
                pass
        dtype = torch.bfloat16 if method == "lora" else torch.float32
        model = AutoModelForCausalLM.from_pretrained(self.place / self.name, dtype=dtype, attn_implementation=kernel).to(theirs)
        if method == "lora":
            model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules=LORA))
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
        torch.manual_seed(0)
        batches = torch.randint(0, 256, (STEPS, BATCH, LENGTH))
        model.train()
        rates = []
        if theirs == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for batch in batches:
            begun = time.monotonic()
            ids = batch.to(theirs)
            with torch.autocast(theirs, torch.bfloat16):
                loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
            rates.append(BATCH * LENGTH / (time.monotonic() - begun))
        memory = torch.cuda.max_memory_allocated() if theirs == "cuda" else None
        return {"tokens_per_second": statistics.median(rates[WARM:]), "memory": memory, "attention": kernel}


def in_own_process(case, method):
    """The peers, whose memory and threads are to be gone afterwards."""
    command = [sys.executable, __file__, *sys.argv[1:4], "--peers", case.name, method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-1500:])
    return json.loads(done.stdout.splitlines()[-1])


def parity():
    """Twenty steps of every strategy that PEFT has, of the preference losses, and of full training."""
    done = subprocess.run([sys.executable, str(tests / "parity/training_parity.py"), "tiny", str(build), device], capture_output=True, text=True, timeout=600)
    lines = [line for line in done.stdout.splitlines() if " differ by " in line]
    if done.returncode != 0:
        raise RuntimeError("\n".join(lines) + (done.stdout + done.stderr)[-1500:])
    return {"runs": lines}


def part(results, name, work):
    begun = time.monotonic()
    try:
        results[name] = work()
    except (Exception, SystemExit) as error:  # of this part alone
        traceback.print_exc()
        results[name] = {"failed": f"{type(error).__name__}: {error}"}
    results[name]["took"] = round(time.monotonic() - begun, 1)
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(f"{name}: {results[name]['took']} s{', FAILED' if 'failed' in results[name] else ''}", flush=True)
    return "failed" not in results[name]


def row_of(name, ours, peers):
    ratio = lambda a, b: f"{a / b:.2f}" if a and b else "-"
    mib = lambda value: f"{value / 2**20:.0f}" if value else "-"
    return (name, f"{ours['tokens_per_second']:.0f}", f"{peers['tokens_per_second']:.0f}" if "tokens_per_second" in peers else "-",
            ratio(ours["tokens_per_second"], peers.get("tokens_per_second")), mib(ours["memory"]), mib(peers.get("memory")), ratio(ours["memory"], peers.get("memory")),
            ratio(ours["planned_memory"], ours["memory"]), str(ours["gpu_busy_percent"] or "-"))


def table(results):
    rows = [("case", "tokens/s", "peers", "ratio", "MiB held", "peers", "ratio", "planned/held", "GPU busy %")]
    for name, ours in results.items():
        if name.endswith(" attune") and "failed" not in ours:
            rows.append(row_of(name[: -len(" attune")], ours, results.get(name.replace(" attune", " peers"), {})))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def main():
    out.mkdir(parents=True, exist_ok=True)
    place = Workplace(out / "work")
    name = torch.cuda.get_device_name(0) if theirs == "cuda" else "none: a rehearsal, whose figures say nothing of a GPU"
    results = {}
    part(results, "gpu", lambda: {"name": name, "torch": torch.__version__, "attune": place.run(program, "doctor").splitlines()[0]})
    part(results, "parity", parity)
    for model, sizes in (SMALL if is_rehearsal else MODELS).items():
        case = Case(place, model)
        if not part(results, f"{model} data", lambda: case.prepare(sizes)):
            continue
        for method in ("lora", "full"):
            part(results, f"{model} {method} attune", lambda: case.attune(method))
            part(results, f"{model} {method} peers", lambda: in_own_process(case, method))
    print(f"\nGPU: {name}\n\n{table(results)}\n\nwritten to {out / 'results.json'}")
    return 1 if any("failed" in value for value in results.values()) else 0


if __name__ == "__main__":
    os.environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
    os.environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    if is_rehearsal:
        torch.set_num_threads(1)
    if "--peers" in sys.argv:
        print(json.dumps(Case(out / "work", sys.argv[5]).peers(sys.argv[6])))
    else:
        sys.exit(main())
