"""Weights read here equal those that transformers reads, and exported folders load in it.

Usage: weights_parity.py ATTUNE MODELS_FOLDER
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

TOLERANCE = 1e-6
TEXTS = ["The capital of France is", "naïve café — 東京\n\n  x = 1", "<|im_start|>user\nHi<|im_end|>\n"]


def export(program, model, folder):
    for arguments in (["inspect", model], ["export", model, "--to", folder]):
        print(subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout)


def check_equal(ours, theirs, what):
    missing = theirs.keys() - ours.keys()
    assert not missing, f"{what}: missing {sorted(missing)[:5]}"
    for name, tensor in theirs.items():
        assert ours[name].shape == tensor.shape, f"{what}: {name} is {ours[name].shape}, not {tensor.shape}"
        difference = (ours[name].double() - tensor.double()).abs().max().item()
        assert difference <= TOLERANCE, f"{what}: {name} differs by {difference}"
    print(f"{what}: {len(theirs)} tensors equal")


def check_tokenizers(ours, theirs, what):
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], f"{what}: {text!r} is tokenized differently"
    print(f"{what}: tokenizers equal")


def check_gguf(program, gguf, folder):
    export(program, gguf, folder)
    theirs = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tied = {"lm_head.weight"} if theirs.config.tie_word_embeddings else set()
    expected = {name: tensor for name, tensor in theirs.state_dict().items() if name not in tied}
    check_equal(load_file(folder / "model.safetensors"), expected, "GGUF against transformers")

    loaded, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    assert loaded.dtype == torch.float32
    check_equal(loaded.state_dict(), theirs.state_dict(), "exported folder in transformers")
    for key in ("hidden_size", "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings", "tie_word_embeddings", "bos_token_id", "eos_token_id"):
        assert getattr(loaded.config, key) == getattr(theirs.config, key), key
    assert loaded.config.rope_parameters["rope_theta"] == theirs.config.rope_parameters["rope_theta"]
    assert abs(loaded.config.rms_norm_eps - theirs.config.rms_norm_eps) < 1e-12

    tokenizer = AutoTokenizer.from_pretrained(folder)
    reference = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    check_tokenizers(tokenizer, reference, "GGUF")
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token is not None
    assert tokenizer.chat_template == reference.chat_template
    prompt = tokenizer(TEXTS[0], return_tensors="pt")
    answer = loaded.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1]:]
    assert tokenizer.decode(answer).startswith(" Paris."), tokenizer.decode(answer)


def check_folder(program, model, folder):
    export(program, model, folder)
    check_equal(load_file(folder / "model.safetensors"), load_file(model / "model.safetensors"), "MiniLM against safetensors")
    check_equal(AutoModel.from_pretrained(folder).state_dict(), AutoModel.from_pretrained(model).state_dict(), "exported MiniLM in transformers")
    tokenizer, reference = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(model)
    check_tokenizers(tokenizer, reference, "MiniLM")
    assert (tokenizer.cls_token, tokenizer.sep_token, tokenizer.pad_token) == ("[CLS]", "[SEP]", "[PAD]")


def main(program, models):
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as scratch:
        check_gguf(program, models / "smollm2-135m" / "SmolLM2-135M-Instruct.Q4_1.gguf", Path(scratch) / "smollm2")
        check_folder(program, models / "minilm", Path(scratch) / "minilm")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
