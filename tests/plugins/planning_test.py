"""What is asked of a login node takes neither the memory nor the time of a model's weights: a model of eight billion
parameters, of which the files' headers are real and the rest is a hole.

    planning_test.py BUILD_FOLDER
"""
import functools
import json
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check, environment, make_classifier, make_model, make_picture_model, make_recipe, write_labelled, write_pictures

MOST_MIB = 170  # beside the program itself, of which a LibTorch for GPUs makes 500
MOST_SECONDS = 2  # of the processor: other tests may run beside this one
ADDRESS_SPACE = 1_900_000_000  # beside the program's libraries, of which a LibTorch for GPUs has several GB; the weights have six times as much

build = Path(sys.argv[1]).resolve()
program = build / "attune"
place = Workplace(build / "tests" / "planning")

# Llama 3.1 8B: https://huggingface.co/meta-llama/Llama-3.1-8B/blob/main/config.json
CONFIG = dict(model_type="llama", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
              vocab_size=128256, max_position_embeddings=131072, rms_norm_eps=1e-5, rope_theta=500000.0, tie_word_embeddings=False, torch_dtype="bfloat16",
              rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192))
PARAMETERS = 8_030_261_248


def shapes():
    width, inner, keys, vocabulary = 4096, 14336, 1024, 128256
    yield "model.embed_tokens.weight", [vocabulary, width]
    for layer in range(32):
        for name, shape in {"input_layernorm": [width], "mlp.down_proj": [width, inner], "mlp.gate_proj": [inner, width], "mlp.up_proj": [inner, width],
                            "post_attention_layernorm": [width], "self_attn.k_proj": [keys, width], "self_attn.o_proj": [width, width],
                            "self_attn.q_proj": [width, width], "self_attn.v_proj": [keys, width]}.items():
            yield f"model.layers.{layer}.{name}.weight", shape
    yield "model.norm.weight", [width]
    yield "lm_head.weight", [vocabulary, width]


def write_shard(path, part):
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in part:
        size = 2
        for length in shape:
            size *= length
        header[name] = dict(dtype="BF16", shape=shape, data_offsets=[end, end + size])
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)  # a hole that reads as zeros


def vocabulary_of(size):
    """A byte-level BPE of so many tokens: bytes, their pairs, and triples."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [(a, b) for a in letters for b in letters] + [(a + b, c) for a in letters[:8] for b in letters for c in letters]
    vocabulary, merges = {letter: i for i, letter in enumerate(letters)}, []
    for pair in pairs[:size - len(letters) - 1]:
        vocabulary["".join(pair)] = len(vocabulary)
        merges.append(pair)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    return tokenizer


def make_large_model(folder):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tensors = list(shapes())
    index = {}
    for shard in range(4):
        part = tensors[shard::4]
        name = f"model-{shard + 1:05}-of-00004.safetensors"
        write_shard(folder / name, part)
        index |= {tensor: name for tensor, _ in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps(dict(metadata={}, weight_map=index)))
    tokenizer = vocabulary_of(CONFIG["vocab_size"])
    check(tokenizer.get_vocab_size() == CONFIG["vocab_size"], f"the tokenizer has as many tokens as the model: {tokenizer.get_vocab_size()}")
    tokenizer.save(str(folder / "tokenizer.json"))


@functools.cache
def bytes_of_libraries():
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return sum(Path(part).stat().st_size for line in listed.splitlines() for part in line.split() if part.startswith("/") and Path(part).exists())


@functools.cache
def mib_of_program():
    process = subprocess.Popen([program, "--help"], stdout=subprocess.DEVNULL)
    return os.wait4(process.pid, 0)[2].ru_maxrss / 1024


def planned(*command, expect=0):
    """What it prints, under a limit of address space; the test ends where it took too much memory or time."""
    most = ADDRESS_SPACE + bytes_of_libraries()
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with (place / "said").open("w") as said:
        process = subprocess.Popen([str(part) for part in (program, *command)], cwd=place.folder, env=environment, stdout=said, stderr=subprocess.STDOUT, preexec_fn=limit)
        _, status, used = os.wait4(process.pid, 0)
    said = (place / "said").read_text()
    check(os.waitstatus_to_exitcode(status) == expect, f"{command}: {said[-3000:]}")
    mib, seconds = used.ru_maxrss / 1024, used.ru_utime + used.ru_stime
    print(f"{command[0]}: {mib:.0f} MiB, {seconds:.2f} s", flush=True)
    check(mib < mib_of_program() + MOST_MIB and seconds < MOST_SECONDS, f"{command[0]} took {mib:.0f} MiB and {seconds:.2f} s")
    return said


make_large_model(place / "large")
make_recipe(place)
(place / "sums.toml").write_text((place / "sums.toml").read_text().replace('tokenizer = "model"', 'tokenizer = "large"'))
place.run(program, "prepare", "sums.toml")
(place / "run.toml").write_text("""
name = "large"
[model]
path = "large"
plugin = "llama"
[dataset]
path = "sums.h5"
plugin = "instruction"
[strategy]
plugin = "lora"
[train]
global_batch = 8
micro_batch = 4
steps = 6
[slurm]
time = "1:00:00"
memory = "64G"
""")
(place / "sweep.toml").write_text('name = "sweep"\nrun = "run.toml"\n[values]\n"train.learning_rate" = [1e-4, 2e-4]\n"seed" = [1, 2]\n')

said = planned("inspect", "large")
check(f"{PARAMETERS:,} parameters" in said and "full" in said.split("strategy ")[1], f"its size and what training takes: {said}")
table, over_others, not_here = re.split(r"\ncombined with a strategy.*`\): |\nnot with this model.*:\n", said)
check(all(f"\n  {name} " in table for name in ("adapter", "full", "lora", "prefix", "prompt", "vera")), f"those that train: {table}")
check({"dpo", "ewc", "l2sp", "quantize"} <= set(over_others.split(", ")), f"those that are listed after another: {over_others}")
check("bitfit" in not_here and "has none: set norms = true" in not_here, f"those that are not for this model, and why: {not_here}")
together = {name: re.search(rf"\n  {name} .* ([\d.]+) GiB\n", table)[1] for name in ("full", "lora")}
for name, size in together.items():
    said = planned("check", "run.toml", f"strategy.plugin={name}", "train.micro_batch=4")
    told = re.search(r"about ([\d.]+) GiB", said)[1]
    check(-0.5 < float(size) - float(told) < 7, f"inspect counts what check counts, but for tables and shorter samples: {name} {size} and {told}")
said = planned("check", "run.toml")
check(f"{PARAMETERS + 41943040}, of which 41943040 train" in said and "weights 30.1 GiB" in said and "is in order" in said, f"the plan: {said}")
for init in ("pissa", "olora"):  # of which the start is computed from the weights
    said = planned("check", "run.toml", f'strategy.init="{init}"')
    check("41943040 train" in said, f"the plan with {init}: {said}")
said = planned("submit", "run.toml", "--print")
check("#SBATCH" in said, f"the job's script: {said}")
said = planned("sweep", "sweep.toml", "--print")
check("#SBATCH --array=0-3" in said, f"the sweep's script: {said}")

# What it would take on machines that are not here: by the formulas of docs/scale.md, to the byte.
MACHINE = """[node]
ranks = 4
memory = 6.4e10
program = 1.5e8
[alone]
float32 = 1e11
memory = 2e10
sums = 5e9
[together]
float32 = 4e11
memory = 6e10
sums = 2e10
[training]
hidden = 0.5
message = 1e-5
[between]
sums = 1e9
message = 2e-5
"""
(place / "machine.toml").write_text(MACHINE)
trained = 41943040  # LoRA's parameters
said = json.loads(planned("plan", "run.toml", "--machine", "./machine.toml", "--ranks", "1,4,8,512", "--json"))
plans = {(each["ranks"], each["shard"]): each for each in said["plans"]}
check(len(plans) == 1 + 3 * 4 and "train.global_batch is 8" in plans[512, "none"]["refusal"], f"more ranks than samples are refused: {said}")
for ranks in (4, 8):
    ring, here = (ranks - 1) / ranks, 4
    for shard, weights in (("none", 4 * trained * ring), ("optimizer", 4 * trained * ring), ("gradients", 4 * trained * ring), ("weights", 4 * trained * (1 - here / ranks) / here)):
        each = plans[ranks, shard]
        times = each["micro_batches"] if shard in ("gradients", "weights") else 1
        check(abs(each["sent"] - (times * 4 * trained * ring + weights)) < 1, f"bytes sent by {ranks} ranks, {shard}: {each}")
        memory, seconds = each["memory"], each["seconds"]
        check(abs(memory["optimizer"] - 8 * trained / (1 if shard == "none" else ranks)) < 20000, f"moments of {ranks} ranks, {shard}: {memory}")
        check(seconds["step"] > seconds["passes"] > 1 and seconds["exposed"] <= seconds["sums"], f"time of {ranks} ranks, {shard}: {seconds}")
check(plans[8, "none"]["seconds"]["sums"] > plans[4, "none"]["seconds"]["sums"], "links between nodes are slower than memory")
check(plans[4, "none"]["memory"]["node"] < 4 * plans[1, "none"]["memory"]["node"] - 2.5 * 2 * PARAMETERS, f"a node holds its base once: {plans[4, 'none']}")
cheap = said["plans"][said["cheapest"]]
check(cheap["fits"] and all(cheap["node_hours"] <= each["node_hours"] for each in plans.values() if each.get("fits")), f"the cheapest that fits: {cheap}")
said = planned("plan", "run.toml", "--machine", "dgx-h100", "--ranks", "8")
check("DGX H100" in said and "cheapest that fits: 8 ranks on 1 node" in said and 'parallel.shard is "weights"' in said, f"a published machine: {said}")
for more, words in ((("--machine", "dgx-h10"), "did you mean 'dgx-h100'"), (("--machine", "./none.toml"), "attune doctor --write"), (("--machine", "dgx-h100", "--ranks", "4,x"), "'x' is no number of ranks"), ((), "--machine"),
                    (("--machine", "./machine.toml", "parallel.device=cuda"), "has no GPUs")):
    said = planned("plan", "run.toml", *more, expect=2)
    check(words in said, f"{more}: {said}")
(place / "machine.toml").write_text(MACHINE.replace("hidden", "hiden"))
said = planned("plan", "run.toml", "--machine", "./machine.toml", expect=2)
check("machine.toml:14:1" in said and "hidden" in said, f"a misspelled key: {said}")

# What is wrong is told as before.
said = planned("check", "run.toml", "strategy.targets=[\"nothing\"]", expect=2)
check("matches nothing in the model" in said, f"targets that are not there: {said}")
said = planned("submit", "run.toml", "strategy.rank=5000", "--print", expect=2)
check("rank" in said, f"a rank that no layer has: {said}")
said = planned("check", "run.toml", "model.plugin=gpt2", expect=2)
check("gpt2" in said, f"another architecture: {said}")


def last_sentence(said):
    return [line for line in said.splitlines() if line.startswith("attune: ")][-1].removeprefix("attune: ")


def without_numbers(text):
    """A pass is of fewer samples than an evaluation."""
    return re.sub(r"\d+", "N", text)


def run_file(model, kind, *strategies, plugin="llama", more=""):
    """strategies: a name, or a name and lines of options."""
    lists = "".join(f'[[strategy]]\nplugin = "{name}"\n{options}\n' for name, options in (s if isinstance(s, tuple) else (s, "") for s in strategies))
    return (f'name = "small"\n[model]\nplugin = "{plugin}"\npath = "{model}"\n[dataset]\nplugin = "{kind}"\npath = "{kind}.h5"\n{more}\n{lists}'
            '[train]\nsteps = 2\nglobal_batch = 8\nmicro_batch = 4\n[slurm]\ntime = "1:00:00"\nmemory = "4G"\n')


def what_training_refuses_is_refused_before(*arguments, say, everywhere=False, **more):
    """By check in train's words; everywhere: by --measure, submit and sweep too, which plan as it does."""
    (place / "small.toml").write_text(run_file(*arguments, **more))
    (place / "small-sweep.toml").write_text('name = "sweep"\nrun = "small.toml"\n[values]\n"train.learning_rate" = [1e-4, 2e-4]\n')
    truth = last_sentence(place.run(program, "train", "small.toml", "--overwrite", expect=2))
    check(say in truth, f"train says '{say}': {truth}")
    others = (("check", "small.toml", "--measure"), ("submit", "small.toml", "--print"), ("sweep", "small-sweep.toml", "--print"))
    for command in (("check", "small.toml"), *(others if everywhere else ())):
        told = last_sentence(place.run(program, *command, expect=2))
        check(without_numbers(told).endswith(without_numbers(truth)), f"{command} says what train says, '{truth}', and not '{told}'")
    print("refused:", truth, flush=True)


def planned_bytes(name):
    """What check tells under this name, or altogether."""
    said = place.run(program, "check", "small.toml")
    found = re.search(rf"{name} ([\d.]+) (B|KiB|MiB|GiB)", said)
    check(found, f"check tells of {name}: {said}")
    return float(found[1]) * 1024 ** ["B", "KiB", "MiB", "GiB"].index(found[2])


def what_strategies_keep_is_planned(arguments, at_least, **more):
    """Returns the bytes of activations."""
    (place / "small.toml").write_text(run_file(*arguments, **more))
    kept, activations = planned_bytes("other tensors") if at_least else 0, planned_bytes("activations of the 4 longest samples")
    check(kept >= at_least and activations > 0, f"{arguments}: it keeps {at_least} bytes, and {kept} are planned")
    return activations


make_model(place / "model")
make_classifier(place / "classifier")
make_picture_model(place / "pictures")
write_labelled(place)
write_pictures(place)
make_recipe(place, name="instruction")
(place / "pairs.jsonl").write_text("".join(json.dumps({"first": f"What is {i}?", "second": f"It is {i}."}) + "\n" for i in range(40)))
(place / "pairs.toml").write_text((place / "instruction.toml").read_text().replace("instruction", "pairs").replace('template = "plain"\n', ""))
for kind in ("classification", "preference"):  # as they are for a decoder
    text = (place / f"{kind}.toml").read_text()
    (place / f"{kind}.toml").write_text(text.replace('tokenizer = "classifier"', 'tokenizer = "model"'))
for kind in ("instruction", "preference", "classification", "images", "pairs"):
    place.run(program, "prepare", f"{kind}.toml")

for loss in ("dpo", "orpo", "kto"):
    what_training_refuses_is_refused_before("model", "instruction", "lora", loss, everywhere=loss == "dpo", say="the loss compares two answers to a prompt")
what_training_refuses_is_refused_before("model", "classification", "full", say="a decoder needs one per token")
what_training_refuses_is_refused_before("model", "pairs", "full", say="a decoder needs one per token")
what_training_refuses_is_refused_before("model", "images", "lora", everywhere=True, say="the data have no tokens, which this llama model needs")
what_training_refuses_is_refused_before("pictures", "instruction", "full", plugin="efficientnet", say="the data have tokens instead of images")
what_training_refuses_is_refused_before("model", "preference", "full", "kto", say="but this run trains its weights")

# So is what could not be exported after the training.
for name, damage in (("no-tokenizer", lambda file: file.unlink()), ("half-a-tokenizer", lambda file: file.write_bytes(file.read_bytes()[:500]))):
    shutil.copytree(place / "model", place / name)
    damage(place / name / "tokenizer.json")
    what_training_refuses_is_refused_before(name, "instruction", "full", everywhere=True, say=name)
    what_training_refuses_is_refused_before(name, "instruction", "lora", say=name)
few = ("prefix", "tokens = 4")
for strategies, say in (((few, "lora"), "a prefix does not change the weights"), (("full", few), "a prefix does not change the weights"),
                        (("lora", ("adapter", "width = 8")), "a bottleneck adapter is not linear"),
                        (("quantize", "lora", "ia3"), "quantized base weights"), (("quantize", ("bitfit", "norms = true")), "is quantized")):
    what_training_refuses_is_refused_before("model", "instruction", *strategies, everywhere=few in strategies, say=say)
    check(not (place / "runs/small/metrics.jsonl").exists(), "before the first step")

# A prompt that leaves no room for the samples.
for name in ("prompt", "prefix"):
    what_training_refuses_is_refused_before("model", "instruction", (name, "tokens = 100"), say="is longer than the model's context")
    what_training_refuses_is_refused_before("model", "instruction", (name, "tokens = 128"), say="which uses up the model's context")

# What a plan does not know, and a GPU that a login node has not.
(place / "small.toml").write_text(run_file("model", "instruction", "lora"))
place.run(program, "train", "small.toml", "name=first")
said = place.run(program, "check", "small.toml", "strategy.lora.adapter=runs/first/adapter", "parallel.device=cuda")
check("not compared" in said and "runs/first/adapter with the weights of model" in said, f"which base the adapter is for: {said}")
check("this machine has no GPU" in said, f"no GPU: {said}")
said = place.run(program, "check", "small.toml")
check("not compared" not in said and "GPU" not in said, f"nothing else: {said}")

# A teacher, copies of the start and importances, for a model of 140,000 bytes; and all losses have their activations.
weights = (place / "model/model.safetensors").stat().st_size - 10000
plain = what_strategies_keep_is_planned(("model", "instruction", "full"), 0)
what_strategies_keep_is_planned(("model", "instruction", "full", "l2sp"), weights)
what_strategies_keep_is_planned(("model", "instruction", "full", ("ewc", 'data = "instruction.h5"')), 2 * weights)
taught = what_strategies_keep_is_planned(("model", "instruction", "full", ("distill", 'teacher = "model"')), weights)
check(taught > 1.5 * plain, f"so are the logits of the two: {taught}, {plain}")
what_strategies_keep_is_planned(("model", "instruction", "full", ("distill", 'teacher = "model"\nstored = "taught.safetensors"')), 1000)
check(not (place / "taught.safetensors").exists(), "a plan stores nothing")
what_strategies_keep_is_planned(("model", "preference", "full", "dpo"), 0)
what_strategies_keep_is_planned(("pictures", "images", "full"), 0, plugin="efficientnet")

config = json.loads((place / "large/config.json").read_text())
(place / "large/config.json").write_text(json.dumps(config | {"intermediate_size": 14000}))
said = planned("check", "run.toml", expect=2)
check("another shape" in said, f"a config that does not fit: {said}")
