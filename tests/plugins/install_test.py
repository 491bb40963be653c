"""Attune as someone gets it who only installs it: `attune new`, find_package(Attune), ctest, and two training steps with the new strategy.

    install_test.py BUILD_FOLDER

Works in BUILD_FOLDER/tests/install, which it makes anew. Model and data are made here and are tiny.
"""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

build = Path(sys.argv[1]).resolve()
work = build / "tests" / "install"
prefix = work / "prefix"
program = prefix / "bin" / "attune"
environment = {name: value for name, value in os.environ.items() if not name.startswith(("ATTUNE_", "LD_LIBRARY_PATH"))}


def run(*command, expect=0, **more):
    """Runs it in the work folder and returns what it printed; ends the test when the exit code is another than expected."""
    command = [str(part) for part in command]
    done = subprocess.run(command, cwd=work, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)
    if done.returncode != expect:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}, not {expect}:\n{done.stdout}")
    return done.stdout


def check(holds, what):
    if not holds:
        sys.exit(f"does not hold: {what}")


def install():
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    run("cmake", "--install", build, "--prefix", prefix)
    listed = run(program, "list")
    for name in ("llama", "instruction", "lora", "jsonl"):
        check(f" {name} " in listed, f"the installed program lists '{name}':\n{listed}")
    check(str(build / "plugins") not in listed, "the installed program uses the installed plugins")


def scaffold():
    run(program, "new", "strategy", "tiny")
    run(program, "new", "callback", "tiny_stop", "--to", "elsewhere/tiny_stop")
    run(program, "new", "dataset", "tiny_text")
    refused = {
        ("strategy", "tiny"): "is there already",
        ("strategy", "lora", "--to", "mine"): "take another name",
        ("strategy", "Big-Name"): "cannot be a plugin's name",
        ("strategy", "../up"): "cannot be a plugin's name",
        ("stratgy", "tiny2"): "did you mean 'strategy'?",
    }
    before = sorted(work.rglob("*"))
    for arguments, reason in refused.items():
        said = run(program, "new", *arguments, expect=2)
        check(reason in said, f"attune new {' '.join(arguments)} is refused with '{reason}', but says: {said}")
    check(sorted(work.rglob("*")) == before, "a refused `attune new` leaves nothing behind")


def build_plugin(folder):
    ccache = shutil.which("ccache")
    launcher = [f"-DCMAKE_CXX_COMPILER_LAUNCHER={ccache}"] if ccache else []
    run("cmake", "-G", "Ninja", "-S", folder, "-B", f"{folder}/build", f"-DCMAKE_PREFIX_PATH={prefix}", *launcher)
    run("cmake", "--build", f"{folder}/build")
    run("ctest", "--test-dir", f"{folder}/build", "--output-on-failure", "--no-tests=error")


def make_model(folder):
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
    config = LlamaConfig(vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=128, bos_token_id=256, eos_token_id=256)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "bos_token": "<|end|>"}))


def train():
    make_model(work / "model")
    records = [{"prompt": f"What is {i} and {i}?", "response": f"It is {2 * i}."} for i in range(40)]
    (work / "sums.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (work / "recipe.toml").write_text("""
name = "sums"
kind = "instruction"
licence = "CC0-1.0"
output = "sums.h5"
tokenizer = "model"
template = "plain"
[[source]]
path = "sums.jsonl"
[split]
validation = 0.2
""")
    (work / "run.toml").write_text("""
name = "first"
plugins = ["tiny/build/plugins", "elsewhere/tiny_stop/build/plugins/tiny_stop.so"]
[model]
plugin = "llama"
path = "model"
[dataset]
plugin = "instruction"
path = "sums.h5"
[strategy]
plugin = "tiny"
[train]
steps = 2
global_batch = 4
micro_batch = 2
[[callback]]
plugin = "tiny_stop"
loss = 0.001
""")
    run(program, "prepare", "recipe.toml")
    run(program, "train", "run.toml")
    events = [json.loads(line) for line in (work / "runs/first/metrics.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step_end"]
    check([step["step"] for step in steps] == [1, 2], f"two steps are logged: {steps}")
    check(all(0 < step["loss"] < 10 and step["grad_norm"] > 0 for step in steps), f"they trained: {steps}")
    begin = next(event for event in events if event["event"] == "run_begin")
    check(begin["trainable_parameters"] == 5 * 32, f"the new strategy trains the five norms alone: {begin}")


install()
scaffold()
for folder in ("tiny", "elsewhere/tiny_stop", "tiny_text"):
    build_plugin(folder)
train()
print("installed, scaffolded, built, trained")
