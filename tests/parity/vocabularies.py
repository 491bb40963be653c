"""Writes the ids that llama.cpp's and transformers' readings of the packaged GGUF vocabularies give, for vocabularies.cpp to compare with.

usage: vocabularies.py VOCABULARIES FOLDER [SECONDS SEED]
For ggml-vocab-NAME.gguf FOLDER/NAME.jsonl: text, ids without the special tokens. llama.cpp's own expected ids (made with each model's
Hugging Face tokenizer) stand in the files .inp and .out beside a vocabulary. For the vocabularies that have none, texts are read by
transformers' reading of the GGUF file, or by the model's published tokenizer put together from the vocabulary.
With SECONDS: random texts through every vocabulary that transformers reads, and through the folder minilm beside VOCABULARIES.
"""

import json
import pathlib
import random
import sys
import time

import text_parity
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer
from transformers.integrations.gguf import read_gguf_metadata
from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer, get_gguf_tokenizer

def published(path):
    texts = path.with_suffix(".gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = path.with_suffix(".gguf.out").read_text().split("\n")[: len(texts)]
    return [(text, [int(i) for i in line.split()]) for text, line in zip(texts, lines, strict=True)]


def xlm_roberta(path):
    """Of Unigram vocabularies the published tokenizer; transformers' T5Tokenizer takes another token to be the unknown one."""
    keys = ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.precompiled_charsmap", "tokenizer.ggml.token_type")
    metadata, _ = read_gguf_metadata(str(path), keys)
    tokens, scores, charsmap, kinds = (metadata[key] for key in keys)
    tokenizer = Tokenizer(models.Unigram(list(zip(tokens, (float(s) for s in scores))), unk_id=metadata["tokenizer.ggml.unknown_token_id"]))
    tokenizer.normalizer = normalizers.Precompiled(bytes(b & 255 for b in charsmap))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t, kind in zip(tokens, kinds) if kind == 3])
    return tokenizer


def gpt_neox(path, backend):
    """NFC, and runs of spaces as added tokens."""
    metadata, _ = read_gguf_metadata(str(path), ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type"))
    data = json.loads(backend.to_str())
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    data["model"]["vocab"] = {token: id for id, token in enumerate(tokens)}  # transformers spells a run of spaces as another token
    for id, (token, kind) in enumerate(zip(tokens, kinds)):
        if kind == 4:  # user-defined
            data["added_tokens"].append({"id": id, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False})
    data["normalizer"] = {"type": "NFC"}
    return Tokenizer.from_str(json.dumps(data))


def read_by_transformers(path):
    architecture, fields, _ = get_gguf_tokenizer(str(path))
    if fields["tokenizer_type"] == "t5":
        return xlm_roberta(path)
    backend, _ = convert_gguf_tokenizer(architecture, fields)
    if architecture in ("gptneox", "mpt"):  # GPT-NeoX's tokenizer, which transformers does not tell from GPT-2's here
        backend = gpt_neox(path, backend)
    return backend


# Of the others transformers does not know how they cut text.
READ_BY_TRANSFORMERS = ("aquila", "baichuan", "gpt-2", "gpt-neox", "llama-bpe", "llama-spm", "nomic-bert-moe", "phi-3")


def write_random(vocabularies, folder, seconds, rng):
    minilm = AutoTokenizer.from_pretrained(vocabularies.parent / "minilm").backend_tokenizer
    minilm.no_truncation()
    minilm.no_padding()
    backends = {name: read_by_transformers(vocabularies / f"ggml-vocab-{name}.gguf") for name in READ_BY_TRANSFORMERS} | {"minilm": minilm}
    for name, backend in backends.items():
        end, rows = time.time() + seconds / len(backends), []
        while time.time() < end:
            texts = [text_parity.random_text(rng) for _ in range(50)]
            encodings = backend.encode_batch(texts, add_special_tokens=False)
            rows += [{"text": text, "ids": encoding.ids} for text, encoding in zip(texts, encodings)]
        text_parity.write_lines(folder / f"{name}.jsonl", rows)


def main():
    vocabularies, folder = map(pathlib.Path, sys.argv[1:3])
    folder.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 3:
        return write_random(vocabularies, folder, float(sys.argv[3]), random.Random(int(sys.argv[4])))
    rng = random.Random(23)
    texts = text_parity.SAMPLES + [text_parity.random_text(rng) for _ in range(100)]
    for path in sorted(vocabularies.glob("ggml-vocab-*.gguf")):
        name = path.stem.removeprefix("ggml-vocab-")
        if path.with_suffix(".gguf.out").exists():
            rows = published(path)
            if name == "llama-spm":  # whose tokenizer of old put a space before every text; transformers reads such a file as the newer form
                backend = read_by_transformers(path)
                rows = [(text, backend.encode(text, add_special_tokens=False).ids if text.startswith(" ") else ids) for text, ids in rows]
        else:
            backend = read_by_transformers(path)
            rows = [(text, backend.encode(text, add_special_tokens=False).ids) for text in texts]
        text_parity.write_lines(folder / f"{name}.jsonl", [{"text": text, "ids": ids} for text, ids in rows])


if __name__ == "__main__":
    main()
