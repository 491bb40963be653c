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
damaged_data()
mistakes_in_the_run_file()
numbers_that_run_away()
mistakes_on_the_command_line()
