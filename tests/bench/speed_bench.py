"""Attune beside transformers and peft on the same weights, samples, order and optimizer: every run a process of its own, in turn, medians of the rounds.

    speed_bench.py BUILD_FOLDER [--rounds N] [--only CASE,...]

Prints a table of ratios, and one of what is measured in other ways (CASE: forward, generate, ranks, prefix, files, beside), and writes both to
BUILD_FOLDER/tests/speed_bench/speed.md. A ratio counts when the losses agree, which is checked.
"""
import argparse
import contextlib
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check, environment, over_ranks

ROOT = Path(__file__).resolve().parent.parent.parent
PEERS = Path(__file__).resolve().parent / "speed_peers.py"
LOSSES_AGREE = {"float32": 1e-4, "bfloat16": 3e-2}  # relative, at every step; autocast rounds results too

# What is compared: the peer variants beside Attune, and the goals: (of which ratio, at least).
CASES = {
    "dense-lora": dict(worker="dense", method="lora", peers=["loop"], steps=6, batch=4, data="corpus", goal={"loop": 1.3}),
    "dense-full": dict(worker="dense", method="full", peers=["loop"], steps=6, batch=4, data="corpus", goal={"loop": 1.2}),
    "sft": dict(worker="sft", method="lora", peers=["default", "grouped", "flat"], steps=12, batch=8, data="foldoc", goal={"default": 2.5, "grouped": 1.25, "flat": 1.25}),
    "classify-full": dict(worker="classify", method="full", peers=["default"], steps=60, batch=32, data="vader", goal={"default": 2.5}),
    "classify-probe": dict(worker="classify", method="probe", peers=["default"], steps=60, batch=32, data="vader", goal={"default": 2.5}),
    "dense-lora-bf16": dict(worker="dense", method="lora", peers=["autocast"], steps=6, batch=4, data="corpus", goal={"autocast": 1.0}, precision="bfloat16"),
    "dense-full-bf16": dict(worker="dense", method="full", peers=["autocast"], steps=6, batch=4, data="corpus", goal={"autocast": 1.0}, precision="bfloat16"),
}
STRATEGY = {"lora": 'plugin = "lora"\nrank = 16\nalpha = 32\nadapter = "adapter"', "full": 'plugin = "full"', "probe": 'plugin = "linear_probe"'}
RATE = {"lora": 1e-4, "full": 1e-5, "probe": 1e-2}


@contextlib.contextmanager
def busy_processes(count):
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


class Bench:
    def __init__(self, build):
        self.program = build / "attune"
        self.place = Workplace(build / "tests" / "speed_bench")
        self.environment = environment | {"OMP_NUM_THREADS": "2", "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)

    # ---- What both sides start from

    def prepare(self):
        model, minilm = self.place / "smollm2", ROOT / "models/minilm"
        self.place.run(self.program, "export", ROOT / "models/smollm2-135m", "--to", model, timeout=600)
        self.peer("prepare", dict(model=str(model), adapter=str(self.place / "adapter"), encoder=str(minilm), classifier=str(self.place / "classifier")))
        for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
            if (minilm / file).exists():
                (self.place / "classifier" / file).write_bytes((minilm / file).read_bytes())
        words = " ".join((ROOT / "data/foldoc/train.jsonl").read_text().splitlines()[:3000])
        recipe = f'name = "corpus"\nkind = "corpus"\nlicence = "GFDL-1.1-or-later"\noutput = "corpus.h5"\ntokenizer = "{model}"\nwindow = 256\n'
        for split, text in (("train", words[:200000]), ("validation", words[200000:203000])):
            (self.place / f"{split}.jsonl").write_text(json.dumps({"text": text}) + "\n")
            recipe += f'[[source]]\npath = "{split}.jsonl"\nsplit = "{split}"\nfields = {{ text = "text" }}\n'
        (self.place / "corpus.toml").write_text(recipe)
        self.place.run(self.program, "prepare", "corpus.toml")
        for name in ("foldoc", "vader"):
            self.place.run(self.program, "prepare", ROOT / f"datasets/{name}/recipe.toml", f"output={self.place / name}.h5", timeout=600)
        for name, case in CASES.items():
            self.run_file(name, case)

    def run_file(self, name, case):
        classifies = case["data"] == "vader"
        plugin, kind = ("bert", "classification") if classifies else ("llama", "corpus" if case["data"] == "corpus" else "instruction")
        (self.place / f"{name}.toml").write_text(f"""name = "{name}"
[model]
plugin = "{plugin}"
path = "{'classifier' if classifies else 'smollm2'}"
[dataset]
plugin = "{kind}"
path = "{case['data']}.h5"
shuffle_block = 1000000000  # one block: the order of the file
[strategy]
{STRATEGY[case['method']]}
[train]
steps = {case['steps']}
global_batch = {case['batch']}
micro_batch = {case['batch']}
precision = "{case.get('precision', 'float32')}"
learning_rate = {RATE[case['method']]}
weight_decay = 0.0
schedule = "constant"
clip = 1.0
[evaluate]
samples = 1
""")

    # ---- One run

    def peer(self, worker, parameters):
        began = time.time()
        done = subprocess.run([sys.executable, PEERS, worker, json.dumps(parameters)], cwd=self.place.folder, env=self.environment | {"BENCH_STARTED": str(began)}, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"the peer failed: {worker} {parameters}\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def run_peer(self, case, variant):
        model = "classifier" if case["data"] == "vader" else "smollm2"
        return self.peer(case["worker"], dict(model=str(self.place / model), tokenizer=str(ROOT / "models/minilm"), adapter=str(self.place / "adapter"), data=str(self.place / f"{case['data']}.h5"),
                                              method=case["method"], variant=variant, steps=case["steps"], batch=case["batch"], rate=RATE[case["method"]], scratch=str(self.place / "trainer")))

    def run_attune(self, name, case, ranks=1, *more):
        shutil.rmtree(self.place / "runs" / name, ignore_errors=True)  # to remove an old run is no part of the start
        began = time.time()
        threads = {"OMP_NUM_THREADS": str(max(1, 2 // ranks))}
        command = over_ranks(ranks, "/usr/bin/time", "-f", "peak %M", self.program, "train", f"{name}.toml", "--overwrite", *more)
        done = subprocess.run([str(part) for part in command], cwd=self.place.folder, env=self.environment | threads, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"attune failed: {name}\n{done.stderr[-3000:]}")
        peak = sum(int(kib) for kib in re.findall(r"peak (\d+)", done.stderr)) / 1024
        [begin], steps = self.place.events(name, "run_begin"), self.place.events(name, "step_end")
        counts = [case["batch"] if case["data"] == "vader" else step["tokens"] for step in steps]
        return {"rate": sum(counts[1:]) / (steps[-1]["unix_seconds"] - steps[0]["unix_seconds"]), "losses": [step["loss"] for step in steps], "start": begin["unix_seconds"] - began, "peak_mib": peak}

    # ---- The table

    def compare(self, name, case, rounds):
        runs = {"attune": [], **{variant: [] for variant in case["peers"]}}
        gflops = []
        for _ in range(rounds):
            for side in runs:
                runs[side].append(self.run_attune(name, case) if side == "attune" else self.run_peer(case, side))
            gflops.append(self.peer("gauge", {})["gflops"])
        middle = {side: {key: statistics.median(run[key] for run in results) for key in ("rate", "start", "peak_mib")} for side, results in runs.items()}
        ours, rows = runs["attune"][0]["losses"], []
        for variant in case["peers"]:
            theirs = runs[variant][0]["losses"]
            apart = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs))
            same_order = variant != "grouped"
            if same_order:
                check(len(ours) == len(theirs) and apart <= LOSSES_AGREE[case.get("precision", "float32")], f"{name}: the losses of attune and of {variant} agree (they differ by {apart:.1e}): {ours} {theirs}")
            a, b = middle["attune"], middle[variant]
            ratio, goal = a["rate"] / b["rate"], case["goal"][variant]
            rows.append(f"| {name} | {variant} | {a['rate']:.1f} | {b['rate']:.1f} | **{ratio:.2f}** | {goal} | {'reached' if ratio >= goal else 'not reached'} | "
                        f"{a['peak_mib']:.0f} / {b['peak_mib']:.0f} ({a['peak_mib'] / b['peak_mib']:.2f}) | {a['start']:.2f} / {b['start']:.2f} | {f'{apart:.0e}' if same_order else 'other order'} | {statistics.median(gflops):.0f} |")
            print(rows[-1], flush=True)
        return rows

    # ---- What the table of runs does not show; rows of (what, attune, peer, ratio, goal, reached)

    def forward(self):
        """Evaluation: the tokens of so many validation samples in the time it takes, in batches of 8 in the order of the file."""
        samples, case = 160, CASES["sft"]
        import h5py
        with h5py.File(self.place / "foldoc.h5") as file:
            tokens = int(file["validation/tokens.offsets"][samples])
        self.run_attune("sft", case, 1, "train.steps=2", f"evaluate.samples={samples}", "evaluate.micro_batch=8")
        step, [evaluated] = self.place.events("sft", "step_end")[-1], self.place.events("sft", "evaluated")
        ours = tokens / (evaluated["unix_seconds"] - step["unix_seconds"])
        base = json.loads((self.place / "runs/sft/evaluation.json").read_text())["base"]["loss"]
        theirs = self.peer("forward", dict(model=str(self.place / "smollm2"), adapter=str(self.place / "adapter"), data=str(self.place / "foldoc.h5"), method="lora", samples=samples, batch=8))
        check(abs(base - theirs["loss"]) <= 1e-4 * base, f"evaluation gives the loss of the peer: {base} {theirs['loss']}")
        yield "evaluation forward, tokens/s", f"{ours:.0f}", f"{theirs['rate']:.0f}", ours / theirs["rate"], 1.3

    def generate(self):
        """Greedy answers of the base to 32 questions."""
        words = [json.loads(line)["prompt"] for line in (ROOT / "data/foldoc/train.jsonl").read_text().splitlines()[:32]]
        (self.place / "questions.jsonl").write_text("".join(json.dumps({"prompt": word}) + "\n" for word in words))

        def answered(batch):
            done = subprocess.run([self.program, "generate", "smollm2", "--prompts", "questions.jsonl", "--raw", "--max-tokens", "48", "--batch", str(batch), "--output", "answers.jsonl"],
                                  cwd=self.place.folder, env=self.environment, capture_output=True, text=True)
            check(done.returncode == 0, f"attune answers: {done.stderr}")
            return float(re.search(r"([\d.]+) tokens/s", done.stderr)[1]), [json.loads(line)["answer"] for line in (self.place / "answers.jsonl").read_text().splitlines()]

        (alone, one_by_one), (ours, answers) = answered(1), answered(16)
        theirs = self.peer("generate", dict(model=str(self.place / "smollm2"), prompts=str(self.place / "questions.jsonl"), tokens=48, batch=16))
        for whose, others in (("one by one", one_by_one), ("of the peer", theirs["answers"])):
            same = sum(a == b for a, b in zip(answers, others))
            check(same >= 28, f"the answers are those {whose}, but for ties that rounding decides: {same} of 32")
        yield "32 answers, 16 at a time, tokens/s", f"{ours:.0f}", f"{theirs['rate']:.0f}", ours / theirs["rate"], 1.3
        yield "32 answers, 16 at a time against one by one, tokens/s", f"{ours:.0f}", f"{alone:.0f}", ours / alone, 1.0

    def ranks(self):
        rates = {1: [], 2: []}
        for _ in range(3):
            for ranks in rates:
                rates[ranks].append(self.run_attune("sft", CASES["sft"], ranks, "train.steps=24")["rate"])
        one, two = map(statistics.median, rates.values())
        yield "FOLDOC, 2 ranks x 1 thread against 1 x 2, tokens/s", f"{two:.0f}", f"{one:.0f}", two / one, 1.0

    def prefix(self):
        """The first epoch of a probe computes what is kept; the later ones begin above it."""
        folder = self.place / "kept"
        shutil.rmtree(folder, ignore_errors=True)
        said = self.place.run(self.program, "train", "classify-probe.toml", "--overwrite", "train.steps=0", "train.epochs=3", "train.prefix_cache=float32", f"train.prefix_folder={folder}", timeout=1800)
        filling = float(re.search(r"kept .* in ([\d.]+) s", said)[1])
        [begin], steps = self.place.events("classify-probe", "run_begin"), self.place.events("classify-probe", "step_end")
        ends = [begin["unix_seconds"]] + [step["unix_seconds"] for step in steps]
        each = len(steps) // 3
        first, later = filling + ends[each] - ends[0], (ends[-1] - ends[each]) / (len(steps) - each) * each
        yield "probe, first epoch against a later one, s", f"{later:.1f}", f"{first:.1f}", first / later, 20

    def files(self):
        calls = "openat,open,stat,lstat,fstat,newfstatat,statx,access,faccessat,faccessat2,readlink,readlinkat,write"
        def counted(command, ranks=1):
            for old in self.place.folder.glob("calls.*"):
                old.unlink()
            line = " ".join(map(str, command))
            self.place.run(*over_ranks(ranks, "bash", "-c", f"exec strace -f -qq -s 40 -e trace={calls} -o calls.${{OMPI_COMM_WORLD_RANK:-0}} {line}"), timeout=900)
            most = [0, 0]
            for file in self.place.folder.glob("calls.*"):
                before = itertools.takewhile(lambda call: '\\"run_begin' not in call, file.read_text(errors="replace").splitlines())
                lines = [call for call in before if " write(" not in call]
                opened = sum(("openat(" in call or " open(" in call) and re.search(r"= \d", call) is not None for call in lines)
                most = [max(most[0], opened), max(most[1], len(lines) - sum("openat(" in call or " open(" in call for call in lines))]
            return most
        parameters = dict(model=str(self.place / "smollm2"), adapter=str(self.place / "adapter"), data=str(self.place / "corpus.h5"), method="lora", variant="loop", steps=1, batch=4, rate=1e-4)
        (self.place / "peer.sh").write_text(f"exec {sys.executable} {PEERS} dense '{json.dumps(parameters)}'\n")
        theirs = counted(["bash", "peer.sh"])
        for ranks in (1, 2, 4):
            ours = counted([self.program, "train", "dense-lora.toml", "--overwrite", "train.steps=1"], ranks)
            for what, mine, other, most in zip(("files opened", "stat-like calls"), ours, theirs, (200, 1000)):
                yield f"{what} by a rank before the first step, {ranks} rank{'s' * (ranks > 1)}", f"{mine}", f"{other}", most / max(1, mine), 1.0

    def beside(self):
        """One and two processes that compute without end share the two cores with the training."""
        case = CASES["dense-lora"]
        quiet = self.run_attune("dense-lora", case)["rate"]
        for count in (1, 2):
            with busy_processes(count):
                ours = self.run_attune("dense-lora", case)["rate"]
            with busy_processes(count):
                theirs = self.run_peer(case, "loop")["rate"]
            what = f"tokens/s beside {count} busy process{'es' * (count > 1)}"
            yield f"{what}; beside it: when quiet", f"{ours:.0f}", f"{quiet:.0f}", ours / quiet, 0.45 if count == 1 else 0.2
            yield f"{what}; beside it: transformers there", f"{ours:.0f}", f"{theirs:.0f}", ours / theirs, 1.3

    def others(self, name):
        rows = []
        for what, ours, theirs, ratio, goal in getattr(self, name)():
            rows.append(f"| {what} | {ours} | {theirs} | **{ratio:.2f}** | {goal} | {'reached' if ratio >= goal else 'not reached'} |")
            print(rows[-1], flush=True)
        return rows

    def machine(self):
        cpu = next(line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
        found = self.peer("gauge", {})
        from importlib.metadata import version
        return f"{cpu}, {os.cpu_count()} cores, {found['capability']}, torch {found['torch']}, transformers {version('transformers')}, peft {version('peft')}"


HEAD = """| case | peer | attune, per s | peer, per s | ratio | goal | | peak MiB, attune / peer | start to first step, s | losses differ by | GFLOP/s |
|---|---|---|---|---|---|---|---|---|---|---|"""
OTHERS = ("forward", "generate", "ranks", "prefix", "files", "beside")
OTHER_HEAD = """| what | attune | beside it | ratio | goal | |
|---|---|---|---|---|---|"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join([*CASES, *OTHERS]))
    given = parser.parse_args()
    bench = Bench(given.build.resolve())
    bench.prepare()
    lines = [f"{bench.machine()}. Medians of {given.rounds}; tokens that are no padding, or samples of a classifier, per second.", "", HEAD]
    print("\n".join(lines), flush=True)
    wanted = given.only.split(",")
    for name in filter(wanted.__contains__, CASES):
        lines += bench.compare(name, CASES[name], given.rounds)
    lines += ["", OTHER_HEAD]
    print(OTHER_HEAD, flush=True)
    for name in filter(wanted.__contains__, OTHERS):
        lines += bench.others(name)
    (bench.place / "speed.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
