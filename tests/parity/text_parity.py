"""Writes what `tokenizers` and `transformers` make of many texts, for text_parity.cpp to compare with.

usage: text_parity.py FOLDER MODELS
FOLDER holds NAME.json files (tokenizer.json); more are written, and beside each NAME.jsonl: text, ids, ids with the special tokens,
decoded text. transformers.jsonl and chat.jsonl come from transformers' own reading of the GGUF file.
"""

import copy
import json
import pathlib
import random
import sys
import unicodedata

import tokenizers
from transformers import AutoTokenizer

SAMPLES = [
    "", " ", "\n", "\t \r\n", "The capital of France is", "Hello, world! It's what they'd've said; we'll see.",
    "IT'S THEY'RE don't DON'T 's 't 'S", "def f(x):\n    return x**2  # squared\n\n\tif not x: pass\n", "  leading and trailing   ",
    "a\u00a0b\u2003c\u3000d\u200be\u180ef\u0085g\u2028h", "0 1 12 123 1234 3.14159 1,000,000 ½ ² Ⅷ ٣٤ 五 १२३ 𝟘𝟙", "x=1;y+=22;z==333",
    "Größe Straße ÀÉÎÕÜ e\u0301 a\u0308\u0323 n\u0303o ǅ İstanbul ıssız ΑΣΣ σς ﬁ ﬀ Å K", "Привет, мир! Съешь ещё этих мягких французских булок",
    "日本語のテキスト。漢字かな交じり文、カタカナ", "中文字符和English混排。", "한국어 텍스트 한글", "مرحبا بالعالم، كيف الحال؟", "שלום עולם",
    "नमस्ते दुनिया क्षत्रिय", "สวัสดีชาวโลก", "வணக்கம் உலகம்", "ქართული ენა", "Ελληνικά γλώσσα", "👩‍👩‍👧‍👦 👍🏽 🇩🇪 ❤️ 🏳️‍🌈 🤷🏾‍♀️", "a\u200db \ufeffbom \u202eright to left\u202c",
    "Z̸̡̛a̷l̶g̴o̵ t̴̢e̶x̷t", "…—–“”‘’«»¿¡", "$€£¥ © ® ™ ° ± × ÷ ≠ ∑ √ ∞", "\x00\x01\x1f\x7f\x80\x9f\ue000\uffff\ufffd", "<|im_start|>user\nhi<|im_end|>\n",
    "<|endoftext|><|im_start|><|im_end|", "[CLS] [SEP] [MASK][PAD] [UNK] [cls]", "https://example.org/a/b?c=d&e=f#g", "a" * 300, "ab " * 200, " " * 77 + "x", "\n" * 20,
    '{"key": [1, 2.5e-3, null, true], "s": "\\n"}', "<html><body class='x'>&amp;</body></html>", "don't do not can't . , ! ? ' ' n't", "word-with-hyphens under_score CamelCase",
    "𐍈𐌰𐌹 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𠜎𠜱", "\ufb01\ufb02 \u1e9e \u0149 \u01c4", "\u0390\u03b0 \u1f80", "e\u0327\u0301 q\u0307\u0323", "가\u11a8 각",
]

BLOCKS = [(0x20, 0x7E), (0x20, 0x7E), (0x20, 0x7E), (0, 0x2FF), (0x300, 0x5FF), (0x600, 0x1FFF), (0x2000, 0x2BFF), (0x3000, 0x9FFF), (0xA000, 0xD7A3), (0xE000, 0xFFFF), (0x10000, 0x1FAFF), (0x20000, 0x2A6DF)]
WORDS = ["the", "The", " of", "ing", "'s", "'LL", "don't", "  ", "\n", "\r\n", "\t", "    ", "123", "4", "<|im_end|>", "<|im_start|>", "[SEP]", "<mark>", "strip", "word", "é", "e\u0301", "ﬁ", "中", "🙂", "🙂\u200d", ".", "...", "::", "->"]


def assigned(c):
    """Assigned in Unicode 12.1 at the latest, so that the libraries' versions of Unicode agree."""
    return unicodedata.ucd_3_2_0.category(c) != "Cn" and unicodedata.category(c) not in ("Cn", "Cs")


def random_text(rng):
    parts = []
    for _ in range(rng.randrange(1, 25)):
        if rng.random() < 0.4:
            parts.append(rng.choice(WORDS))
        else:
            low, high = rng.choice(BLOCKS)
            run = (chr(rng.randint(low, high)) for _ in range(rng.randrange(1, 6)))
            parts.append("".join(c for c in run if assigned(c)))
    return "".join(parts)


def texts(count):
    rng = random.Random(7)
    return SAMPLES + [random_text(rng) for _ in range(count)]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def split(pattern, behavior, invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def variants(base):
    """The same vocabulary with other stages."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}

    def with_parts(**parts):
        return {**copy.deepcopy(base), **parts}

    def pre(*parts):
        return {"type": "Sequence", "pretokenizers": [*parts, level]}

    for behavior in ("Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"):
        for invert in (False, True):
            yield f"split-{behavior}-{invert}", with_parts(pre_tokenizer=pre(split({"Regex": r"\s|[aeiou.]"}, behavior, invert)))
        yield f"split-string-{behavior}", with_parts(pre_tokenizer=pre(split({"String": "."}, behavior)))
    yield "digits-together", with_parts(pre_tokenizer=pre({"type": "Digits", "individual_digits": False}))
    yield "whitespace", with_parts(pre_tokenizer=pre({"type": "Whitespace"}))
    yield "bert-pre", with_parts(pre_tokenizer=pre({"type": "BertPreTokenizer"}))
    yield "prefix-space", with_parts(pre_tokenizer={**level, "add_prefix_space": True, "use_regex": True})
    yield "prefix-space-later", with_parts(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, {**level, "add_prefix_space": True}]})
    for form in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase"):
        yield form, with_parts(normalizer={"type": form})
    yield "nfd-lower", with_parts(normalizer={"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}]})
    for name, flags in {"clean": (1, 0, 0, 0), "chinese": (0, 1, 0, 0), "accents": (0, 0, 1, 0), "lower": (0, 0, 0, 1), "default": (1, 1, None, 1)}.items():
        keys = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
        yield f"bert-{name}", with_parts(normalizer={"type": "BertNormalizer", **{k: v if v is None else bool(v) for k, v in zip(keys, flags)}})
    marks = [("<mark>", {"lstrip": True}), ("strip", {"rstrip": True, "normalized": True}), ("word", {"single_word": True}), ("<mark>...", {"lstrip": True, "rstrip": True}), ("Straße", {"normalized": True}), ("the", {"single_word": True, "normalized": True, "special": True})]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    vocab = base["model"]["vocab"]
    new = iter(range(len(vocab), len(vocab) + len(marks)))
    added = base["added_tokens"] + [{"id": vocab[c] if c in vocab else next(new), "content": c, **flags, **extra} for c, extra in marks]
    yield "added", with_parts(added_tokens=added)
    # In lower case, because `tokenizers` decodes such a token to its normalised form, and we to its own.
    lower = [{**token, "content": token["content"].lower()} for token in added]
    yield "added-lower", with_parts(added_tokens=lower, normalizer={"type": "Lowercase"})
    unknown = with_parts(pre_tokenizer={"type": "Whitespace"})
    for fuse in (False, True):
        unknown["model"] = {**unknown["model"], "unk_token": "<|endoftext|>", "fuse_unk": fuse}
        yield f"unknown-{fuse}", copy.deepcopy(unknown)
    yield "ignore-merges", {**unknown, "model": {**unknown["model"], "ignore_merges": True}}
    yield "no-decoder", with_parts(decoder=None)


def encode_all(folder, path, count):
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rows = []
    for text in texts(count):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        special = tokenizer.encode(text).ids
        rows.append({"text": text, "ids": ids, "special": special, "decoded": tokenizer.decode(special), "decoded_whole": tokenizer.decode(special, skip_special_tokens=False)})
    write_lines(path.with_suffix(".jsonl"), rows)


def conversations():
    system, user, answer = ({"role": role, "content": ""} for role in ("system", "user", "assistant"))
    rng = random.Random(11)
    yield [{**user, "content": "What is HDF5?"}]
    yield [{**system, "content": "Be brief."}, {**user, "content": "Hi"}, {**answer, "content": "Hello."}]
    yield [{**user, "content": "  spaces \n"}, {**answer, "content": "\n\nstarts with lines"}, {**user, "content": ""}, {**answer, "content": " "}]
    for _ in range(200):
        start = [{**system, "content": random_text(rng)}] if rng.random() < 0.3 else []
        turns = [{**(answer if i % 2 else user), "content": random_text(rng)} for i in range(rng.randrange(1, 6))]
        yield start + turns


def main():
    folder, models = map(pathlib.Path, sys.argv[1:])
    base = json.loads((folder / "smollm.json").read_text(encoding="utf-8"))
    for name, variant in variants(base):
        (folder / f"{name}.json").write_text(json.dumps(variant), encoding="utf-8")
    for path in sorted(folder.glob("*.json")):
        encode_all(folder, path, 2000 if path.stem in ("smollm", "minilm") else 300)

    gguf = AutoTokenizer.from_pretrained(models / "smollm2-135m", gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")
    # transformers takes GPT-2's cut for "smollm" vocabularies, which differs at numbers alone.
    plain = [t for t in texts(2000) if not any(unicodedata.category(c).startswith("N") for c in t)]
    write_lines(folder / "transformers.jsonl", [{"text": t, "ids": gguf(t, add_special_tokens=False)["input_ids"]} for t in plain])

    ours = tokenizers.Tokenizer.from_file(str(folder / "smollm.json"))
    rows = []
    for messages in conversations():
        whole, prompt = (gguf.apply_chat_template(messages, tokenize=False, add_generation_prompt=p) for p in (False, True))
        rows.append({"messages": messages, "ids": ours.encode(whole).ids, "prompt": ours.encode(prompt).ids})
    write_lines(folder / "chat.jsonl", rows)
    (folder / "chat_template.txt").write_text(gguf.chat_template, encoding="utf-8")


main()
