"""A tiny model, tiny data and run files for tests that run the program from outside."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

environment = {name: value for name, value in os.environ.items() if not name.startswith(("ATTUNE_", "LD_LIBRARY_PATH", "OMPI_COMM_", "PMIX_"))}
environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMP_NUM_THREADS": "1"}


def check(holds, what):
    if not holds:
        sys.exit(f"does not hold: {what}")


class Workplace:
    """A folder made anew, and commands run in it."""

    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def __truediv__(self, name):
        return self.folder / name

    def start(self, *command, **more):
        return subprocess.Popen([str(part) for part in command], cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)

    def run(self, *command, expect=0, timeout=120):
        """Returns what it printed; ends the test when the exit code is another than expected."""
        process = self.start(*command)
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            sys.exit(f"{' '.join(map(str, command))}\nhangs:\n{process.communicate()[0]}")
        if process.returncode != expect:
            sys.exit(f"{' '.join(map(str, command))}\nended with {process.returncode}, not {expect}:\n{said}")
        return said

    def events(self, run, kind):
        lines = (self.folder / "runs" / run / "metrics.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]


    def steps_done(self, run):
        """How many steps the run has logged; 0 while there is no log."""
        metrics = self.folder / "runs" / run / "metrics.jsonl"
        return metrics.read_text().count('"step_end"') if metrics.exists() else 0


def ranks_of(process):
    """The process ids of what mpirun has started, in the order of the ranks; none when it has ended."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "attune"]
    except OSError:
        return []


def over_ranks(ranks, *command):
    return command if ranks == 1 else ("mpirun", "--oversubscribe", "--bind-to", "none", "-n", ranks, *command)


def make_model(folder, **more):
    """A Llama of two blocks with random weights, and a byte-level tokenizer of 256 tokens and one special."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    torch.manual_seed(0)
    sizes = dict(vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=128, bos_token_id=256, eos_token_id=256)
    LlamaForCausalLM(LlamaConfig(**(sizes | more))).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "bos_token": "<|end|>"}))


def make_small_model(folder, family):
    """One of a family that no package ships, with random weights and without a tokenizer, for data that were prepared for SmolLM2 or are pictures."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageClassification

    torch.manual_seed(0)
    if family == "gpt2":
        config = AutoConfig.for_model(family, vocab_size=49152, n_embd=32, n_layer=2, n_head=4, n_positions=1024, bos_token_id=1, eos_token_id=2)
        model = AutoModelForCausalLM.from_config(config)
    else:
        config = AutoConfig.for_model(family, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8)
        model = AutoModelForImageClassification.from_config(config)
    model.save_pretrained(folder)


def make_recipe(place, rows=40, name="sums", extra=""):
    """Prompts and answers of uneven length, and the recipe for them: name.jsonl, name.toml, name.h5."""
    records = [{"prompt": f"What is {i} and {i}?", "response": "It is " + "about " * (i % 5) + f"{2 * i}."} for i in range(rows)]
    (place / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    write_recipe(place, name, extra)


def write_recipe(place, name, extra="", validation=0.2, more=""):
    """name.toml: name.jsonl -> name.h5. extra: further lines at its top level; more: further tables."""
    (place / f"{name}.toml").write_text(f"""
name = "{name}"
kind = "instruction"
licence = "CC0-1.0"
output = "{name}.h5"
tokenizer = "model"
template = "plain"
{extra}
[[source]]
path = "{name}.jsonl"
[split]
validation = {validation}
{more}
""")


RUN = """
name = "run"
seed = 3
[model]
plugin = "llama"
path = "model"
[dataset]
plugin = "instruction"
path = "sums.h5"
[strategy]
plugin = "lora"
rank = 4
[train]
steps = 6
global_batch = 8
micro_batch = 2
learning_rate = 1e-2
"""
