"""Folders as users have them: the weights that are read are those that transformers reads, or a sentence says why not.

Usage: weight_files_parity.py ATTUNE
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from tiny import Workplace, check, environment, make_model  # noqa: E402

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class Folders(Workplace):
    """Copies of one model, changed in some way."""

    def __init__(self, folder, program):
        super().__init__(folder)
        self.program = Path(program).resolve()
        make_model(self / "alone")
        self.weights = load_file(self / "alone" / WHOLE)
        self.half = list(self.weights)[: len(self.weights) // 2]

    def copy(self, name):
        return Path(shutil.copytree(self / "alone", self / name))

    def save(self, path, tensors):
        save_file(tensors, path, metadata={"format": "pt"})

    def sharded(self, name, first=None, second=None, index=None):
        """A copy in two files. first, second: further tensors of theirs; index: another weight_map."""
        folder = self.copy(name)
        (folder / WHOLE).unlink()
        parts = {
            FIRST: {k: v for k, v in self.weights.items() if k in self.half},
            SECOND: {k: v for k, v in self.weights.items() if k not in self.half},
        }
        where = {tensor: file for file, tensors in parts.items() for tensor in tensors}
        self.save(folder / FIRST, parts[FIRST] | (first or {}))
        self.save(folder / SECOND, parts[SECOND] | (second or {}))
        (folder / INDEX).write_text(
            json.dumps({"metadata": {}, "weight_map": where if index is None else index(where)})
        )
        return folder

    def read(self, folder):
        """The tensors that an export of the folder holds."""
        out = self / "exported"
        shutil.rmtree(out, ignore_errors=True)
        self.run(self.program, "export", folder, "--to", out)
        AutoModelForCausalLM.from_pretrained(out)
        return load_file(out / WHOLE)

    def generated(self, folder, expect=0):
        """What the model says, or why it cannot be built from the weights."""
        command = [
            self.program,
            "generate",
            folder,
            "--prompt",
            "What is 2 and 2?",
            "--raw",
            "--max-tokens",
            "8",
        ]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said = done.stdout.decode(errors="backslashreplace")  # random weights say random bytes
        check(done.returncode == expect, f"{folder.name}: ends with {expect}, not {done.returncode}: {said}")
        return said

    def same(self, folder):
        """Attune reads what transformers reads."""
        theirs, ours = AutoModelForCausalLM.from_pretrained(folder).state_dict(), self.read(folder)
        for name, tensor in theirs.items():
            own = ours.get(name, ours.get(name.removeprefix("model.")))
            check(own is not None and torch.equal(own, tensor), f"{folder.name}: {name} as in transformers")

    def refused(self, folder, *says, loads=False):
        """Refused in a sentence that says these things. loads: transformers reads it all the same."""
        said = self.run(self.program, "export", folder, "--to", self / "none", expect=2)
        for words in says:
            check(words in said, f"{folder.name}: {words!r} in {said}")
        check(len(said.strip().splitlines()) == 1, f"one line: {said}")
        try:
            AutoModelForCausalLM.from_pretrained(folder)
            check(loads, f"{folder.name}: transformers reads it")
        except (OSError, ValueError, KeyError):
            check(not loads, f"{folder.name}: transformers does not read it")


def check_neighbours(at):
    """Files beside model.safetensors that are not for transformers."""
    other = {name.replace("model.layers", "layers"): value + 1 for name, value in at.weights.items()}
    folder = at.copy("consolidated")
    at.save(folder / "consolidated.safetensors", other)
    at.save(folder / "consolidated-00001-of-00001.safetensors", other)
    at.same(folder)
    folder = at.copy("adapter-file")
    at.save(
        folder / "adapter_model.safetensors", {"base_model.model.lm_head.lora_A.weight": torch.ones(2, 3)}
    )
    at.same(folder)
    folder = at.copy("mac")
    (folder / "._model.safetensors").write_bytes(b"\x00\x05\x16\x07" + bytes(200))
    (folder / "._model.safetensors.index.json").write_bytes(b"\x00\x05\x16\x07" + bytes(200))
    at.same(folder)
    folder = at.copy("variant")
    at.save(
        folder / "model.fp16.safetensors", {name: (value + 1).half() for name, value in at.weights.items()}
    )
    at.same(folder)
    folder = at.copy("pickled")
    torch.save({name: value + 1 for name, value in at.weights.items()}, folder / "pytorch_model.bin")
    at.same(folder)
    folder = at.copy("stale-index")
    (folder / INDEX).write_text(
        json.dumps({"metadata": {}, "weight_map": {name: FIRST for name in at.weights}})
    )
    at.same(folder)
    folder = at.sharded("whole-and-shards", second={"model.norm.weight": at.weights["model.norm.weight"]})
    at.save(folder / WHOLE, {name: value + 1 for name, value in at.weights.items()})
    at.same(folder)
    folder = at.copy("subfolders")
    for below in ("original", "checkpoint-500"):
        (folder / below).mkdir()
        at.save(folder / below / WHOLE, other)
        shutil.copy(folder / "config.json", folder / below)
    at.same(folder)


def check_shards(at):
    name = at.half[0]
    at.same(at.sharded("sharded"))
    at.same(at.sharded("index-of-some", index=lambda where: {name: FIRST, list(at.weights)[-1]: SECOND}))
    at.same(
        at.sharded(
            "index-confused",
            index=lambda where: {k: FIRST if file == SECOND else SECOND for k, file in where.items()},
        )
    )
    at.same(at.sharded("twice-the-same", second={name: at.weights[name]}))
    at.refused(
        at.sharded("twice-another", second={name: at.weights[name] + 1}),
        name,
        "different values",
        SECOND,
        loads=True,
    )
    at.refused(
        at.sharded("ghost", index=lambda where: where | {"ghost.weight": FIRST}),
        INDEX,
        "ghost.weight",
        "do not belong together",
        loads=True,
    )
    folder = at.sharded("shard-missing")
    (folder / SECOND).unlink()
    at.refused(folder, INDEX, SECOND, "fetch that file too")
    folder = at.sharded("index-missing")
    (folder / INDEX).unlink()
    at.refused(folder, FIRST, SECOND, INDEX, "fetch it too")


def check_other_names(at):
    def renamed(name, to):
        folder = at.copy(name)
        (folder / WHOLE).rename(folder / to)
        return folder

    at.refused(
        renamed("variant-alone", "model.fp16.safetensors"),
        "does not read model.fp16.safetensors",
        "rename it to model.safetensors",
    )
    at.refused(
        renamed("consolidated-alone", "consolidated.safetensors"), "does not read consolidated.safetensors"
    )
    at.refused(
        renamed("adapter-alone", "adapter_model.safetensors"), "adapter_model.safetensors is an adapter"
    )
    at.refused(renamed("below", "elsewhere.txt"), "contains no weights", "fetch them too")
    folder = renamed("named-by-config", "weights.safetensors")
    config = json.loads((folder / "config.json").read_text()) | {
        "transformers_weights": "weights.safetensors"
    }
    (folder / "config.json").write_text(json.dumps(config))
    at.same(folder)
    (folder / "weights.safetensors").unlink()
    (folder / "config.json").write_text(
        json.dumps(config | {"transformers_weights": "../alone/model.safetensors"})
    )
    at.refused(folder, "transformers_weights", "beside it")
    folder = at.copy("pickled-alone")
    (folder / WHOLE).unlink()
    torch.save(at.weights, folder / "pytorch_model.bin")
    at.refused(folder, "pytorch_model.bin is not read", "save_pretrained", loads=True)
    folder = at.copy("gguf-beside-config")
    (folder / WHOLE).unlink()
    (folder / "model.Q4_K_M.gguf").write_bytes(b"GGUF")
    at.refused(folder, "model.Q4_K_M.gguf", "name the one you mean")


def check_cache(at):
    """The Hugging Face cache: a snapshot's files are links to blobs."""
    root = at / "models--tiny--llama"
    snapshot = root / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0123abcd")
    for number, file in enumerate(sorted(at.sharded("for-the-cache").iterdir())):
        shutil.copy(file, root / "blobs" / f"{number:040x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:040x}")
    at.same(snapshot)
    (at / "link").symlink_to(snapshot)
    at.same(at / "link")
    at.refused(root, "folder of the Hugging Face cache", str(snapshot))
    blob = root / "blobs" / os.path.basename(os.readlink(snapshot / SECOND))
    blob.unlink()
    at.refused(snapshot, SECOND, "fetch that file too")
    (snapshot / INDEX).unlink()
    (snapshot / INDEX).symlink_to("../../blobs/gone")
    at.refused(snapshot, INDEX, "which does not exist")


def check_folders_around(at):
    """sentence-transformers keeps the model in a folder below; so do checkpoints of a Trainer."""
    root = at / "sentence"
    root.mkdir()
    (root / "modules.json").write_text("[]")
    shutil.copytree(at / "alone", root / "0_Transformer")
    at.refused(root, "config.json", str(root / "0_Transformer"))
    shutil.copytree(at / "alone", root / "1_Other")
    at.refused(root, "0_Transformer, 1_Other")


def check_contents(at):
    def changed(name, change):
        folder = at.copy(name)
        at.save(folder / WHOLE, change(dict(at.weights)))
        return folder

    def unfit(name, change, *says):
        said = at.generated(changed(name, change), expect=2)
        for words in says:
            check(words in said, f"{name}: {words!r} in {said}")

    query = "model.layers.0.self_attn.q_proj.weight"
    at.same(
        changed(
            "extra",
            lambda w: w
            | {
                "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
                "position_ids": torch.arange(4),
            },
        )
    )
    at.same(changed("bare", lambda w: {name.removeprefix("model."): value for name, value in w.items()}))
    check(at.generated(at / "bare") == at.generated(at / "alone"), "a bare decoder is the same model")
    at.generated(changed("doubles", lambda w: w | {query: w[query].double()}))
    unfit("integers", lambda w: w | {query: (w[query] * 50).to(torch.int8)}, query, "I8", "quantization")
    unfit("missing", lambda w: {name: value for name, value in w.items() if name != query}, query, "missing")
    unfit("shape", lambda w: w | {query: w[query][:8].contiguous()}, query, "[8, 32]")
    folder = at.copy("with-adapter")
    get_peft_model(
        AutoModelForCausalLM.from_pretrained(at / "alone"),
        LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False),
    ).save_pretrained(folder)
    at.refused(folder, "adapter_config.json", "to another folder", loads=True)
    folder = at.copy("quantized")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"quantization_config": {"quant_method": "gptq", "bits": 4}})
    )
    said = at.run(at.program, "export", folder, "--to", at / "none", expect=2)
    check("gptq" in said and "config.json" in said, said)
    folder = at.copy("pointer")
    (folder / WHOLE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123456\n")
    said = at.run(at.program, "export", folder, "--to", at / "none", expect=2)
    check("Git LFS pointer" in said and WHOLE in said, said)


def main(program):
    with tempfile.TemporaryDirectory() as scratch:
        at = Folders(Path(scratch) / "work", program)
        for part in (
            check_neighbours,
            check_shards,
            check_other_names,
            check_cache,
            check_folders_around,
            check_contents,
        ):
            part(at)
            print(part.__name__[6:], "hold")


if __name__ == "__main__":
    main(sys.argv[1])
