"""Bad input, one by one: a clear message, exit code 2, nothing left behind.

    bad_input_test.py BUILD_FOLDER
"""
import json
import shutil
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import RUN, Workplace, check, make_model, make_recipe, over_ranks

build = Path(sys.argv[1]).resolve()
program = build / "attune"
place = Workplace(build / "tests" / "bad_input")


def refused(*arguments, say, ranks=1, leaves=()):
    """The command is refused with these words, and makes no file but those named."""
    before = set(place.folder.rglob("*"))
    said = place.run(*over_ranks(ranks, program, *arguments), expect=2)
    words = [say] if isinstance(say, str) else say
    for word in words:
        check(word in said, f"{' '.join(map(str, arguments))} is refused with '{word}', but says:\n{said}")
    check("terminate called" not in said and "Traceback" not in said, f"it ends in order:\n{said}")
    made = {str(path.relative_to(place.folder)) for path in set(place.folder.rglob("*")) - before}
    check(all(any(name == allowed or name.startswith(allowed + "/") for allowed in leaves) for name in made), f"nothing is left behind, but {sorted(made)} is")
    print(f"ok {' '.join(map(str, arguments))}: {said.strip().splitlines()[-1][:160]}", flush=True)


def copy_of_model(name):
    shutil.copytree(place / "model", place / name)
    return place / name


def damaged_models():
    refused("train", "run.toml", "model.path=nowhere", say="nowhere")
    folder = copy_of_model("no-weights")
    (folder / "model.safetensors").unlink()
    refused("train", "run.toml", "model.path=no-weights", say="safetensors")

    folder = copy_of_model("truncated")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:len(content) // 2])
    refused("train", "run.toml", "model.path=truncated", say="truncated/model.safetensors")
    refused("train", "run.toml", "model.path=truncated", say="truncated/model.safetensors", ranks=2)

    folder = copy_of_model("lying")
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + length])
    name = next(key for key in header if key != "__metadata__")
    header[name]["shape"] = [1 << 40, 1 << 40]
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length:])
    refused("train", "run.toml", "model.path=lying", say=["lying/model.safetensors", name])

    (place / "forged.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60))
    refused("train", "run.toml", "model.path=forged.gguf", say="forged.gguf")

    folder = copy_of_model("other-tokenizer")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {f"extra{i}": 300 + i for i in range(50)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    refused("train", "run.toml", "model.path=other-tokenizer", say=["other-tokenizer", "350", "257"])

    make_model(place / "foreign")
    config = json.loads((place / "foreign/config.json").read_text())
    (place / "foreign/config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    refused("train", "run.toml", "model.path=foreign", say="mamba")


def numbers_that_no_config_has():
    """Every number that is read of config.json."""
    folder = copy_of_model("numbers")
    config = json.loads((folder / "config.json").read_text())
    rotary = dict(rope_type="yarn", factor=4.0, rope_theta=1e4, original_max_position_embeddings=32)
    wrong = {"rms_norm_eps": (-1, 2), "num_key_value_heads": (0, -2), "head_dim": (0, 1 << 30), "hidden_size": (0, -32), "max_position_embeddings": (0, -1)}
    for key, value in [(key, value) for key, values in wrong.items() for value in values]:
        (folder / "config.json").write_text(json.dumps(config | {key: value}))
        refused("check", "run.toml", "model.path=numbers", say=["config.json has", key, str(value)])
    for key, value in (("rope_theta", 0), ("rope_theta", -1e4), ("factor", 0), ("beta_fast", 0), ("beta_slow", -1), ("original_max_position_embeddings", 0),
                       ("attention_factor", -1), ("mscale", -1)):
        (folder / "config.json").write_text(json.dumps(config | {"rope_parameters": rotary | {key: value}}))
        refused("check", "run.toml", "model.path=numbers", say=["config.json has", key])
    (folder / "config.json").write_text(json.dumps(config | {"rope_parameters": None, "rope_theta": 0}))
    refused("check", "run.toml", "model.path=numbers", say=["config.json has rope_theta = 0"])
    (folder / "config.json").write_text(json.dumps(config | {"rope_parameters": rotary, "rms_norm_eps": 0}))
    place.run(program, "check", "run.toml", "model.path=numbers")


def damaged_data():
    import h5py
    (place / "text.h5").write_text("this is no HDF5 file")
    refused("train", "run.toml", "dataset.path=text.h5", say="text.h5")
    with h5py.File(place / "foreign.h5", "w") as file:
        file["x"] = [1, 2, 3]
    refused("train", "run.toml", "dataset.path=foreign.h5", say="foreign.h5")
    refused("train", "run.toml", "dataset.path=nowhere.h5", say="nowhere.h5")

    shutil.copy(place / "sums.h5", place / "flipped.h5")
    with h5py.File(place / "flipped.h5") as file:
        chunk = file["train/tokens"].id.get_chunk_info(0)
    with open(place / "flipped.h5", "r+b") as file:
        file.seek(chunk.byte_offset + 5)
        byte = file.read(1)
        file.seek(chunk.byte_offset + 5)
        file.write(bytes([byte[0] ^ 0xFF]))
    refused("train", "run.toml", "dataset.path=flipped.h5", "name=flipped", say="flipped.h5", leaves=("runs",))

    shutil.copy(place / "sums.h5", place / "masked.h5")
    with h5py.File(place / "masked.h5", "r+") as file:
        for split in ("train", "validation"):
            file[split]["loss_mask"][...] = 0
    refused("train", "run.toml", "dataset.path=masked.h5", "name=masked", say="target", leaves=("runs",))

    shutil.copy(place / "sums.h5", place / "half-masked.h5")
    with h5py.File(place / "half-masked.h5", "r+") as file:
        file["train"]["loss_mask"][...] = 0
    refused("train", "run.toml", "dataset.path=half-masked.h5", "name=half", say=["step 1", "target"], ranks=2, leaves=("runs",))

    make_recipe(place, name="empty")
    text = (place / "empty.toml").read_text()
    (place / "empty.toml").write_text(text.replace("validation = 0.2", "validation = 0.001"))
    refused("prepare", "empty.toml", say="validation")
    (place / "empty.toml").write_text(text.replace("validation = 0.2", "validation = 0.0"))
    place.run(program, "prepare", "empty.toml")
    refused("train", "run.toml", "dataset.path=empty.h5", say=["empty.h5", "'validation' is empty"])


def mistakes_in_the_run_file():
    text = RUN.replace("seed = 3", "sead = 3").replace("rank = 4", "rank = -1").replace("steps = 6", 'steps = "six"').replace('"instruction"', '"instructions"')
    (place / "five.toml").write_text(text + "\n[evaluate]\nevry = 2\n")
    refused("train", "five.toml", say=["five.toml:3:1: unknown key 'sead'; did you mean 'seed'?", "did you mean 'instruction'?", "'rank' is -1", "'steps' must be integer",
                                       "unknown key 'evry'; did you mean 'every'?"])
    refused("train", "five.toml", say="five.toml:3:1", ranks=2)
    refused("train", "run.toml", "train.global_batch=2", "train.micro_batch=1", say=["4 ranks", "2"], ranks=4)
    refused("train", "run.toml", "train.global_batch=64", say=["32", "64"])
    refused("train", "run.toml", "strategy.targets=nothing_like_it", say="nothing_like_it")
    refused("train", "run.toml", "strategy.rank=2000", say="2000")
    frozen = RUN.split("[strategy]")[0] + '[strategy]\nplugin = "freeze"\n[train]' + RUN.split("[train]")[1]
    (place / "frozen.toml").write_text(frozen)
    refused("train", "frozen.toml", 'strategy.freeze=["*"]', say="train")


RECIPE = """name = "sums"
kind = "instruction"
licence = "CC0-1.0"
output = "wrong.h5"
tokenizer = "model"
template = "plain"
[[source]]
path = "sums.jsonl"
[split]
validation = 0.2
"""
SWEEP = """name = "s"
run = "run.toml"
[values]
"strategy.rank" = [2, 4]
"""
# The command, a good file, what is replaced by what, and the words that must be said.
CAUSES = [
    ("train", RUN, 'plugin = "lora"', 'pulgin = "lora"', ["wrong.toml:11:1: unknown key 'pulgin'; did you mean 'plugin'?"]),
    ("train", RUN, '"lora"', '"full"', ["'rank' is an option of the strategy", "'lora'"]),
    ("train", RUN, "[strategy]", "[stratgy]", ["wrong.toml:10:2: unknown key 'stratgy'; did you mean 'strategy'?"]),
    ("train", RUN, "rank = 4", "rank = 4\nsteps = 3", ["wrong.toml:13:1: unknown key 'steps'; 'steps' belongs to [train]"]),
    ("train", RUN, "steps = 6", 'steps = "6"', ["wrong.toml:14:9: 'steps' must be integer, but is a text: write 6 without quotes"]),
    ("train", RUN, '"model"', "model", ["wrong.toml:6:8: ", 'write a text in quotes: path = "model"']),
    ("train", RUN, "seed = 3", "seed = 3\nseed = 4", ["wrong.toml:4:", "'seed' is already set in line 3"]),
    ("prepare", RECIPE, 'kind = "instruction"', 'knid = "instruction"', ["wrong.toml:2:1: unknown key 'knid'; did you mean 'kind'?"]),
    ("prepare", RECIPE, 'kind = "instruction"', "kind = 3", ["wrong.toml:2:8: 'kind' must be the name of a dataset plugin, in quotes"]),
    ("prepare", RECIPE, '"instruction"', '"instructions"', ["wrong.toml:2:8: there is no dataset 'instructions'; did you mean 'instruction'?"]),
    ("prepare", RECIPE, "[[source]]", "[source]", ["wrong.toml:7:1: sources are a list: write each as [[source]]"]),
    ("prepare", RECIPE, "[[source]]", "[[sorce]]", ["unknown key 'sorce'; did you mean 'source'?"]),
    ("prepare", RECIPE, "[split]", "[spilt]", ["wrong.toml:9:2: unknown key 'spilt'; did you mean 'split'?"]),
    ("prepare", RECIPE, 'path = "sums.jsonl"', 'path = "sums.jsonl"\nvalidation = 0.1', ["wrong.toml:9:1: unknown key 'validation'; 'validation' belongs to [split]"]),
    ("prepare", RECIPE, "validation = 0.2", "validation = 0.2\nlicence = \"x\"", ["'licence' belongs to the top of the recipe"]),
    ("prepare", RECIPE, "validation = 0.2", "validation = 0.7\ntest = 0.7", ["'validation' (0.7) and 'test' (0.7) add up to more than 1"]),
    ("prepare", RECIPE, '"plain"', "plain", ["wrong.toml:6:12: ", 'write a text in quotes: template = "plain"']),
    ("prepare", RECIPE, "licence", "license", ["unknown key 'license'; did you mean 'licence'?"]),
    ("sweep", SWEEP, "[values]", "[value]", ["wrong.toml:3:2: unknown key 'value'; did you mean 'values'?"]),
    ("sweep", SWEEP, '"strategy.rank"', '"strategy.rnak"', ["wrong.toml", "trial rnak=2", "unknown key 'rnak'; did you mean 'rank'?"]),
    ("sweep", SWEEP, '"strategy.rank"', "strategy.rank", ["wrong.toml:4:10: ", "write keys with a dot in quotes: \"strategy.rank\""]),
    ("sweep", SWEEP, '"run.toml"', '"rnu.toml"', ["rnu.toml"]),
    ("sweep", SWEEP, "run =", "rnu =", ["wrong.toml:2:1: unknown key 'rnu'; did you mean 'run'?"]),
    ("sweep", SWEEP, "[values]", "trials = 3\n[values]", ["wrong.toml:3:10: 'trials' needs method = \"random\""]),
    ("sweep", SWEEP, '"s"', '""', ["wrong.toml:1:8: 'name' is empty"]),
]


def causes_that_stand_in_the_file():
    for command, good, before, after, say in CAUSES:
        check(before in good, f"'{before}' is in the file")
        (place / "wrong.toml").write_text(good.replace(before, after, 1))
        refused(command, "wrong.toml", *(("--here",) if command == "sweep" else ()), say=say)
    (place / "site.toml").write_text('[slrum]\npartition = "x"\n')
    refused("submit", "run.toml", "--site", "./site.toml", "--print", say="site.toml:1:2: unknown key 'slrum'; did you mean 'slurm'?")
    refused("prepare", "run.toml", say="run.toml: is a run file, not a recipe: give it to `attune train`")
    refused("train", "sums.toml", say="sums.toml: is a recipe, not a run file: give it to `attune prepare`")
    (place / "wrong.toml").write_text(SWEEP)
    refused("train", "wrong.toml", say="wrong.toml: is a sweep file, not a run file: give it to `attune sweep`")
    refused("sweep", "run.toml", say="run.toml: is a run file, not a sweep file: give it to `attune train`")
    refused("train", "run.toml", "strategy.lora.rank=8", say="the file has a single [strategy]: write strategy.rank=...")


def names_that_would_cost_other_runs():
    """As by `name=$UNSET --overwrite`: every run was lost once."""
    place.run(program, "train", "run.toml", "name=first", "train.steps=1")
    (place / "runs/first/notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in (place / "runs").rglob("*") if path.is_file()}
    for name in ("", ".", "..", "a/b", "../runs", "a\nb"):
        refused("train", "run.toml", f"name={name}", "--overwrite", say="'name'")
    refused("train", "run.toml", "output=", "--overwrite", say="'output' is empty")
    refused("submit", "run.toml", "name=", "--print", say="'name' is empty")
    refused("submit", "run.toml", "name=", "slurm.array=0-3", "--print", say="'name' is empty")
    refused("train", "run.toml", "name=runs", "output=.", "--overwrite", "dataset.path=sums.h5", "model.path=runs/first", say="runs/first")
    (place / "runs/metrics.jsonl").write_text("")
    refused("train", "run.toml", "name=runs", "output=.", "--overwrite", say=["runs: contains another run, ", "and is not replaced"], leaves=("runs/.lock",))
    (place / "runs/metrics.jsonl").unlink()
    check(before == {path: path.read_bytes() for path in (place / "runs").rglob("*") if path.is_file()}, "nothing is lost")
    said = place.run(program, "train", "run.toml", "name=first", "train.steps=2", "--overwrite")
    check("--overwrite keeps files that do not belong to the run: notes.txt" in said and (place / "runs/first/notes.txt").exists(), f"what Attune did not write stays: {said}")
    shutil.copytree(place / "model", place / "runs/first/base")
    refused("train", "run.toml", "name=first", "model.path=runs/first/base", "--overwrite", say="--overwrite would remove runs/first/base, which this run reads")


def numbers_that_run_away():
    for ranks in (1, 2):
        refused("train", "run.toml", "train.optimizer=sgd", "train.learning_rate=1e30", "train.clip=0", f"name=nan{ranks}", say=["step ", "lower train.learning_rate"], ranks=ranks, leaves=("runs",))


def mistakes_on_the_command_line():
    refused("trian", "run.toml", say="did you mean 'train'?")
    refused("train", say="attune train")
    refused("train", "nowhere.toml", say="nowhere.toml")
    refused("train", "run.toml", "--reusme", say="reusme")
    refused("export", "model", "--to", "model", say="model")
    refused("inspect", "run.toml", say="run.toml")


make_model(place / "model")
make_recipe(place)
(place / "run.toml").write_text(RUN)
place.run(program, "prepare", "sums.toml")
damaged_models()
numbers_that_no_config_has()
damaged_data()
mistakes_in_the_run_file()
causes_that_stand_in_the_file()
names_that_would_cost_other_runs()
numbers_that_run_away()
mistakes_on_the_command_line()
