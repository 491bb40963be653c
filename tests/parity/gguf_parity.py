"""Models read from GGUF files equal those of transformers that the files were made of.

Usage: gguf_parity.py ATTUNE MODEL_PARITY PLUGINS_FOLDER
"""

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, normalize
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from gguf_models import SCALES, heads_of, random_blocks, unpermuted, write_gguf  # noqa: E402

LOGITS, LOSS = 1e-4, 1e-5
SAMPLES = [[5, 9, 2, 33, 7, 1, 30, 12, 4, 4, 61], [3, 8, 60]]
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
ENCODER = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
}
STRETCHED = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "llama3 of another context": {
        "rope_type": "llama3",
        "factor": 16.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 2.0,
        "original_max_position_embeddings": 32,
    },
    "llama3 with broad heads": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}


def decoders():
    yield "llama", "llama", SIZES | {"tie_word_embeddings": False}
    yield "llama, tied", "llama", SIZES | {
        "tie_word_embeddings": True,
        "head_dim": 16,
        "attention_bias": True,
        "mlp_bias": True,
    }
    for name, scaling in STRETCHED.items():
        base, width = (500000.0, 64) if "broad" in name else (10000.0, 16)
        yield f"llama, {name}", "llama", SIZES | {
            "head_dim": width,
            "rope_parameters": {"rope_theta": base, **scaling},
        }
    yield "mistral", "mistral", SIZES | {"sliding_window": 4, "head_dim": 16}
    yield "qwen2", "qwen2", SIZES | {"tie_word_embeddings": True}
    yield "qwen2, yarn", "qwen2", SIZES | {"rope_parameters": {"rope_theta": 1e6, **STRETCHED["yarn"]}}
    yield "qwen3", "qwen3", SIZES | {"head_dim": 16}
    yield "gemma2", "gemma2", SIZES | {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 4}
    yield "gpt2", "gpt2", {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40}
    yield "gpt2, untied", "gpt2", {
        "vocab_size": 64,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 40,
        "tie_word_embeddings": False,
    }


def encoders():
    yield "bert", "bert", ENCODER
    yield "roberta", "roberta", ENCODER | {
        "pad_token_id": 0,
        "type_vocab_size": 1,
        "max_position_embeddings": 41,
    }
    yield "distilbert", "distilbert", {
        "vocab_size": 64,
        "dim": 32,
        "hidden_dim": 48,
        "n_layers": 2,
        "n_heads": 4,
        "max_position_embeddings": 40,
    }


def random_model(auto, family, sizes):
    torch.manual_seed(1)
    model = auto.from_config(AutoConfig.for_model(family, **sizes), attn_implementation="eager").eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)  # norms and biases, too
    return model


def close(ours, theirs, tolerance, what):
    assert ours.shape == theirs.shape, f"{what}: {list(ours.shape)}, not {list(theirs.shape)}"
    difference = (ours.double() - theirs.double()).abs().max().item()
    assert difference <= tolerance, f"{what} differs by {difference}"
    print(f"{what}: differs by {difference:.1e}")


class Runner:
    def __init__(self, program, parity, plugins, scratch):
        self.program, self.parity, self.plugins, self.scratch = program, parity, plugins, Path(scratch)

    def attune(self, *arguments):
        return subprocess.run(
            [self.program, *map(str, arguments)], check=True, capture_output=True, text=True
        ).stdout

    def compute(self, file, plugin, targets, **options):
        output = Path(tempfile.mkdtemp(dir=self.scratch))
        request = {
            "plugins": self.plugins,
            "output": str(output),
            "strategy": {"plugin": "full"},
            "samples": SAMPLES,
            "targets": targets,
            "model": {"plugin": plugin, "path": str(file), **options},
        }
        (output / "request.json").write_text(json.dumps(request))
        subprocess.run([self.parity, output / "request.json"], check=True)
        return load_file(output / "results.safetensors")

    def exported(self, file):
        folder = Path(tempfile.mkdtemp(dir=self.scratch)) / "model"
        self.attune("export", file, "--to", folder)
        return folder


def check_logits(run, file, plugin, model, what):
    targets = [token for ids in SAMPLES for token in ids[1:] + [-100]]
    results = run.compute(file, plugin, targets)
    logits = torch.cat([model(torch.tensor([ids])).logits[0] for ids in SAMPLES])
    close(results["logits"], logits, LOGITS, f"{what}: logits")
    count = sum(target != -100 for target in targets)
    close(results["loss"] / count, cross_entropy(logits, torch.tensor(targets)), LOSS, f"{what}: loss")
    again = AutoModelForCausalLM.from_pretrained(run.exported(file), attn_implementation="eager")
    close(
        torch.cat([again(torch.tensor([ids])).logits[0] for ids in SAMPLES]),
        logits,
        LOGITS,
        f"{what}: logits of the exported folder",
    )
    if rotary := getattr(model.base_model, "rotary_emb", None):
        ratio = again.base_model.rotary_emb.inv_freq / rotary.inv_freq
        close(ratio, torch.ones_like(ratio), 1e-5, f"{what}: rotary frequencies")


def check_decoder(run, what, family, sizes):
    model = random_model(AutoModelForCausalLM, family, sizes)
    file = run.scratch / f"{what}.gguf"
    write_gguf(file, model)
    check_logits(run, file, family, model, what)


def check_encoder(run, what, family, sizes):
    model = random_model(AutoModel, family, sizes)
    file = run.scratch / f"{what}.gguf"
    write_gguf(file, model)
    plugin = "distilbert" if family == "distilbert" else "bert"
    pooled = normalize(torch.cat([model(torch.tensor([ids])).last_hidden_state.mean(1) for ids in SAMPLES]))
    results = run.compute(file, plugin, [0, 1], head="embedding", pooling="mean")
    close(results["logits"], pooled, LOGITS, f"{what}: embeddings")


def quantize_randomly(model, random, scales):
    """Random blocks for all matrices of the model, which takes their values; the types take turns."""
    blocks, kinds = {}, itertools.cycle(SCALES)
    for name, parameter in model.named_parameters():
        if parameter.dim() != 2:
            continue
        kind = next(kinds)
        raw = random_blocks(kind, *parameter.shape, random, scales)
        values = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
        heads = heads_of(name, model.config)
        parameter.copy_(torch.from_numpy(unpermuted(values, heads) if heads else values))
        blocks[name] = kind, raw
    assert {kind for kind, _ in blocks.values()} == set(SCALES), "every type has a tensor"
    return blocks


def check_quantized(run, what, scales):
    """Bit for bit: the values of random blocks of every type."""
    model = random_model(
        AutoModelForCausalLM, "llama", SIZES | {"hidden_size": 256, "intermediate_size": 256}
    )
    blocks = quantize_randomly(model, numpy.random.default_rng(3), scales)
    file = run.scratch / f"{what}.gguf"
    write_gguf(file, model, blocks)
    ours, theirs = load_file(run.exported(file) / "model.safetensors"), model.state_dict()
    for name, (kind, _) in blocks.items():
        assert torch.equal(
            ours[name].view(torch.int32), theirs[name].view(torch.int32)
        ), f"{kind}: {name} is not what gguf.quants makes of it"
    print(f"{what}: {len(blocks)} tensors of {len(SCALES)} types equal bit for bit")
    return file, model


def check_types(run):
    check_quantized(run, "extreme scales", [0, -0.0, 6e-8, -6e-8, 5.9e-5, 6.1e-5, 65504, -65504, 1, -0.3])
    file, model = check_quantized(run, "ordinary scales", [1e-4, 2e-4, -1e-4])
    check_logits(run, file, "llama", model, "quantized")
    said = run.attune("inspect", file)
    assert all(f"  {kind} " in said for kind in SCALES), f"inspect names every type: {said}"


def check_parts(run):
    """A model that is split: by its first file, and by its folder."""
    model = random_model(AutoModelForCausalLM, "llama", SIZES)
    folder = run.scratch / "parts"
    folder.mkdir()
    write_gguf(folder / "tiny.gguf", model, split=8)
    files = sorted(folder.iterdir())
    assert len(files) == 3, files
    check_logits(run, files[0], "llama", model, "first of three files")
    check_logits(run, folder, "llama", model, "folder of three files")


def main(program, parity, plugins):
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as scratch:
        run = Runner(program, parity, plugins, scratch)
        for case in decoders():
            check_decoder(run, *case)
        for case in encoders():
            check_encoder(run, *case)
        check_types(run)
        check_parts(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
