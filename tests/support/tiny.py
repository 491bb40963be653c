"""A tiny model, tiny data and run files for tests that run the program from outside."""
import json
import os
import re
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
        self.cache = self.folder.with_name(self.folder.name + ".cache")
        for left in (self.folder, self.cache):
            shutil.rmtree(left, ignore_errors=True)
        self.cache.unlink(missing_ok=True)
        self.folder.mkdir(parents=True)

    def __truediv__(self, name):
        return self.folder / name

    def start(self, *command, **more):
        own = environment | {"XDG_CACHE_HOME": str(self.cache)}
        return subprocess.Popen([str(part) for part in command], cwd=self.folder, env=own, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)

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


def bytes_in(text):
    """The first size in a text, such as "about 1.4 GiB: weights ..."."""
    number, unit = re.search(r"([\d.]+) ([KMGT]?i?B)\b", text).groups()
    return float(number) * 1024 ** ["B", "KiB", "MiB", "GiB", "TiB"].index(unit)


def over_ranks(ranks, *command):
    return command if ranks == 1 else ("mpirun", "--oversubscribe", "--bind-to", "none", "-n", ranks, *command)


def byte_tokenizer():
    """Byte-level, of 256 tokens and one special."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    return tokenizer


def make_model(folder, **more):
    """A Llama of two blocks with random weights, and a byte-level tokenizer of 256 tokens and one special."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    sizes = dict(vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=128, bos_token_id=256, eos_token_id=256)
    LlamaForCausalLM(LlamaConfig(**(sizes | more))).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "bos_token": "<|end|>"}))


def make_classifier(folder):
    """A BERT of two blocks with random weights, and a tokenizer of single letters."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    letters = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz.,?!", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    tokenizer = Tokenizer(models.WordPiece({letter: i for i, letter in enumerate(letters)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    torch.manual_seed(0)
    sizes = dict(vocab_size=len(letters), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=96)
    BertModel(BertConfig(**sizes)).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def paced(run_file, build, milliseconds, unless="hurry"):
    """The text of a run file whose steps wait so long, until a file of the name `unless` is there: a test then meets the run while it trains."""
    plugin = Path(build).resolve() / "tests/fixtures/paced_fixture.so"
    return f'plugins = ["{plugin}"]\n{run_file}[[callback]]\nplugin = "paced"\nmilliseconds = {milliseconds}\nunless = "{unless}"\n'


def make_gpt2(folder, like):
    """A GPT-2 of two blocks with random weights, and the tokenizer of make_model's folder `like`."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=257, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=256, eos_token_id=256)).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(like / file, folder / file)


def make_picture_model(folder):
    """An EfficientNet of two stages for pictures of 16 x 16, with random weights that let something of the picture through."""
    import torch
    from transformers import EfficientNetConfig, EfficientNetModel

    sizes = dict(width_coefficient=1.0, depth_coefficient=1.0, kernel_sizes=[3, 3], in_channels=[32, 16], out_channels=[16, 24], strides=[1, 2], num_block_repeats=[1, 1],
                 expand_ratios=[1, 6], hidden_dim=1280, image_size=16, num_labels=2)
    torch.manual_seed(0)
    net = EfficientNetModel(EfficientNetConfig(**sizes))
    for name, parameter in net.named_parameters():
        if parameter.dim() == 4:
            torch.nn.init.kaiming_normal_(parameter)
        elif name.endswith("weight"):
            torch.nn.init.ones_(parameter)
    net.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))


def write_labelled(place, rows=40):
    """Recipes and sources of three kinds: instruction and preference for make_model's, classification for make_classifier's."""
    words = ["good", "bad", "fine", "poor", "dull", "great"]
    records = {
        "instruction": [{"prompt": f"What is {i} and {i}?", "response": "It is " + "about " * (i % 5) + f"{2 * i}."} for i in range(rows)],
        "preference": [{"prompt": f"What is {i} and {i}?", "chosen": f"It is {2 * i}.", "rejected": "I do not " + "really " * (i % 4) + "know."} for i in range(rows)],
        "classification": [{"text": f"{words[i % 6]} and {words[i // 6 % 6]}", "label": "no" if i % 6 in (1, 3, 4) else "yes"} for i in range(rows)],
    }
    for kind, lines in records.items():
        (place / f"{kind}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in lines))
        reads = 'tokenizer = "classifier"' if kind == "classification" else 'tokenizer = "model"\ntemplate = "plain"'
        extra = {"preference": 'layout = "preference"', "classification": 'fields = { text = "text", label = "label" }'}.get(kind, "")
        more = '[balance]\nmethod = "weights"\n' if kind == "classification" else ""
        (place / f"{kind}.toml").write_text(f'name = "{kind}"\nkind = "{kind}"\nlicence = "CC0-1.0"\noutput = "{kind}.h5"\n{reads}\n'
                                            f'[[source]]\npath = "{kind}.jsonl"\n{extra}\n[clean]\ndeduplicate = "none"\n[split]\nvalidation = 0.2\n{more}')


def write_pictures(place, rows=40):
    """images.toml: grey pictures of 16 x 16 that are brighter above or below."""
    import numpy
    random = numpy.random.default_rng(0)
    labels = numpy.arange(rows) % 2
    pixels = random.integers(0, 156, (rows, 16, 16)) + 100 * ((numpy.arange(16)[:, None] < 8) == labels[:, None, None])
    for name, values in (("pictures-idx3-ubyte", pixels), ("labels-idx1-ubyte", labels)):
        head = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
        (place / name).write_bytes(head + values.astype("uint8").tobytes())
    (place / "images.toml").write_text('''name = "images"\nkind = "images"\nlicence = "CC0-1.0"\noutput = "images.h5"\n[[source]]\npath = "pictures-idx3-ubyte"\nformat = "idx"\n'''
                                       '''labels = "labels-idx1-ubyte"\n[split]\nvalidation = 0.2\n''')


def make_small_model(folder, family):
    """One of a family that no package ships, with random weights for texts in the byte tokenizer or for pictures."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageClassification

    torch.manual_seed(0)
    if family == "gpt2":
        config = AutoConfig.for_model(family, vocab_size=257, n_embd=32, n_layer=2, n_head=4, n_positions=1024, bos_token_id=1, eos_token_id=2)
        model = AutoModelForCausalLM.from_config(config)
    else:
        config = AutoConfig.for_model(family, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8)
        model = AutoModelForImageClassification.from_config(config)
    model.save_pretrained(folder)
    if family == "gpt2":
        byte_tokenizer().save(str(folder / "tokenizer.json"))


def make_recipe(place, rows=40, name="sums", extra=""):
    """Prompts and answers of uneven length, and the recipe for them: name.jsonl, name.toml, name.h5."""
    records = [{"prompt": f"What is {i} and {i}?", "response": "It is " + "about " * (i % 5) + f"{2 * i}."} for i in range(rows)]
    (place / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    write_recipe(place, name, extra)


def write_answers(place):
    """Digits that follow digits, and the recipe for the dataset of the fixture exact_match: answers.jsonl, answers.toml."""
    digits = [{"prompt": f"after {i} comes ", "response": str((i + 1) % 10)} for i in range(10) for _ in range(4)]
    (place / "answers.jsonl").write_text("".join(json.dumps(record) + "\n" for record in digits))
    (place / "answers.toml").write_text('name = "answers"\nkind = "sums"\nlicence = "CC0-1.0"\noutput = "answers.h5"\ntokenizer = "model"\n'
                                        '[[source]]\npath = "answers.jsonl"\n[clean]\ndeduplicate = "none"\n[split]\nvalidation = 0.4\n')


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
