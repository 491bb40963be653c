"""Writes what `tokenizers` and `transformers` make of many texts, for text_parity.cpp to compare with.

usage: text_parity.py FOLDER MODELS DOCS
FOLDER holds NAME.json files (tokenizer.json); more are written, and beside each NAME.jsonl: text, ids, ids with the special tokens,
their offsets, decoded text. invalid.jsonl has bytes that are not UTF-8. DOCS is a file of records {"text"}; docs/NAME.bin has what smollm and
minilm make of each. transformers.jsonl and chat.jsonl come from transformers' own reading of the GGUF file.
"""

import copy
import json
import pathlib
import random
import sys
import unicodedata

import chat_templates
import numpy
import text_kinds
import tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_TOKENIZER_MAPPING, convert_gguf_tokenizer

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
    return unicodedata.category(c) not in ("Cn", "Cs")


def every_script():
    """All that Unicode 14 assigns, in order, 96 code points to a text; of ideographs and Hangul syllables every 23rd."""
    dense = lambda c: 0x3400 <= c < 0xA000 or 0xAC00 <= c < 0xD7A4 or 0x17000 <= c < 0x1B300 or c >= 0x20000
    chosen = [chr(c) for c in range(0xE000) if assigned(chr(c)) and (not dense(c) or c % 23 == 0)]
    chosen += [chr(c) for c in range(0xF900, 0x110000) if assigned(chr(c)) and unicodedata.category(chr(c)) != "Co" and (not dense(c) or c % 23 == 0)]
    for start in range(0, len(chosen), 96):
        part = chosen[start : start + 96]
        yield "".join(part)
        yield " ".join("".join(part[i : i + 5]) for i in range(0, len(part), 5)) + " a" + "a".join(part[::3])


def one_line(docs, size):
    return " ".join("".join(docs).split())[:size]


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


def texts(count, scripts):
    rng = random.Random(7)
    return SAMPLES + [random_text(rng) for _ in range(count)] + (list(every_script()) if scripts else [])


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


def open_tokenizer(path):
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encode_all(path, samples):
    tokenizer = open_tokenizer(path)
    rows = []
    for text in samples:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        special = tokenizer.encode(text)
        rows.append({"text": text, "ids": ids, "special": special.ids, "offsets": special.offsets, "decoded": tokenizer.decode(special.ids), "decoded_whole": tokenizer.decode(special.ids, skip_special_tokens=False)})
    write_lines(path.with_suffix(".jsonl"), rows)


def encode_docs(path, docs):
    """For each document: how many tokens, their ids, their offsets; all int32."""
    (path.parent / "docs").mkdir(exist_ok=True)
    with open(path.parent / "docs" / f"{path.stem}.bin", "wb") as file:
        for encoding in open_tokenizer(path).encode_batch(docs):
            numpy.array([len(encoding.ids), *encoding.ids, *(o for pair in encoding.offsets for o in pair)], numpy.int32).tofile(file)


def invalid_texts(docs):
    """Bytes that are not UTF-8, as latin-1: noise, and text with bytes knocked out."""
    rng = random.Random(3)
    for _ in range(500):
        yield bytes(rng.randrange(256) for _ in range(rng.randrange(60)))
    for text in docs[:20]:
        damaged = bytearray((text[:300] + "äöü中文字🙂🙂" * 5).encode())
        for _ in range(20):
            damaged[rng.randrange(len(damaged))] = rng.randrange(128, 256)
        yield bytes(damaged)


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


def answer_mask(render, messages, whole, offsets, closing):
    """1 for tokens in what follows the prompt for an answer, up to its closing mark; None when a conversation's beginning is not written alike."""
    mask = [0] * len(offsets)
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = render(messages[:i], True)
        if not whole.startswith(prompt):
            return None
        end = whole.index(closing, len(prompt) + len(message["content"].strip())) + len(closing)
        for k, (b, e) in enumerate(offsets):
            mask[k] |= e > len(prompt) and b < end
    return mask


def chat_rows(folder):
    rng = random.Random(5)
    said = ["Hi", "  What is HDF5?\n", "", " ", "Ünïcode 🙂 中文", "two\n\nparagraphs", "\n\nlines first", "x = [1, 2]  # code", "[INST] no [/INST]"]
    for model, (jinja, tokens, kinds, closing, system) in chat_templates.TEMPLATES.items():
        for kind in kinds:
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / f"{kind}.json"), **tokens)
            render = lambda messages, prompt: tokenizer.apply_chat_template(messages, chat_template=jinja, tokenize=False, add_generation_prompt=prompt)
            backend = open_tokenizer(folder / f"{kind}.json")
            backend.post_processor = tokenizers.processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])  # which trims no offsets
            for i in range(80):
                first = [{"role": "system", "content": rng.choice(said)}] if system and i % 3 == 0 else []
                turns = [{"role": ("user", "assistant")[k % 2], "content": rng.choice(said)} for k in range(rng.randrange(1, 7))]
                messages = first + turns
                whole = render(messages, False)
                encoding = backend.encode(whole, add_special_tokens=False)
                changed = lambda i: [message | {"content": message["content"] + "\U000f5a11"} if k == i else message for k, message in enumerate(messages)]
                loses = any(message["role"] != "assistant" and message["content"].strip() and render(changed(i), False) == whole for i, message in enumerate(messages))
                row = {"loses": loses, "model": model, "kind": kind, "jinja": jinja, "tokens": tokens, "messages": messages, "ids": encoding.ids, "mask": answer_mask(render, messages, whole, encoding.offsets, closing)}
                if turns[-1]["role"] == "user":
                    row["prompt"] = backend.encode(render(messages, True), add_special_tokens=False).ids
                yield row


def gguf_metadata(folder):
    """(name, metadata) of vocabularies as llama.cpp's converters write them: of the trained kinds, their scores in the order of merging."""
    for name, kind, architecture in (("llama", "llama2-first", "llama"), ("gemma", "gemma", "gemma2"), ("phi3", "llama2-legacy", "phi3")):
        data = json.loads((folder / f"{kind}.json").read_text(encoding="utf-8"))
        special = {t["content"] for t in data["added_tokens"]}
        tokens = [t for t, _ in sorted(data["model"]["vocab"].items(), key=lambda item: item[1])]
        kinds = [3 if t in special else 6 if t.startswith("<0x") else 1 for t in tokens]
        if name == "gemma":
            tokens = [" " * len(t) if len(t) > 1 and not t.strip("\u2581") else t for t in tokens]
        bos = tokens.index("<bos>" if name == "gemma" else "<s>")
        yield name, {"general.architecture": architecture, "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.scores": [-float(i) for i in range(len(tokens))], "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.bos_token_id": bos, "tokenizer.ggml.unknown_token_id": tokens.index("<unk>")}
    t5 = json.loads((folder / "t5.json").read_text(encoding="utf-8"))["model"]["vocab"]
    yield "t5", {"general.architecture": "t5", "tokenizer.ggml.model": "t5", "tokenizer.ggml.tokens": [t for t, _ in t5], "tokenizer.ggml.scores": [s for _, s in t5], "tokenizer.ggml.token_type": [3, 3, 2] + [1] * (len(t5) - 3), "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.unknown_token_id": 2, "tokenizer.ggml.add_eos_token": True}


def gguf_rows(folder):
    """What transformers makes of these vocabularies, without the special tokens around a text."""
    for name, metadata in gguf_metadata(folder):
        fields = {to: metadata[f"tokenizer.{key}"] for key, to in GGUF_TOKENIZER_MAPPING["tokenizer"].items() if f"tokenizer.{key}" in metadata}
        backend, _ = convert_gguf_tokenizer(metadata["general.architecture"], fields)
        for text in texts(300, True):
            yield {"name": name, "text": text, "ids": backend.encode(text, add_special_tokens=False).ids}
        (folder / f"gguf-{name}.metadata").write_text(json.dumps(metadata), encoding="utf-8")


def main():
    folder, models, documents = map(pathlib.Path, sys.argv[1:])
    docs = [json.loads(line)["text"] for line in documents.read_text(encoding="utf-8").split("\n")[:-1]]
    base = json.loads((folder / "smollm.json").read_text(encoding="utf-8"))
    real = {"smollm", "minilm"}
    scripted = real | {"llama3", "qwen2", "llama2-legacy", "t5", "albert", "clip", "word-level"}
    trained = dict(text_kinds.kinds("".join(docs)[:1_000_000]))
    for name, tokenizer in [*variants(base), *trained.items()]:
        (folder / f"{name}.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    long = [one_line(docs, 1_000_000), "x" * 20_000, " " * 20_000]
    for path in sorted(folder.glob("*.json")):
        kind = path.stem
        encode_all(path, texts(10_000 if kind in real else 300 if kind in trained else 100, kind in scripted) + (long if kind in real else [one_line(docs, 30_000)]))
        if kind in real:
            encode_docs(path, docs)
    write_lines(folder / "invalid.jsonl", [{"kind": kind, "bytes": raw.decode("latin-1"), "count": raw.decode("utf-8", "replace").count("\ufffd"), "ids": tokenizer.encode(raw.decode("utf-8", "replace")).ids} for kind in ("smollm", "minilm", "llama2-legacy", "t5") for tokenizer in [open_tokenizer(folder / f"{kind}.json")] for raw in invalid_texts(docs)])

    write_lines(folder / "chat_families.jsonl", chat_rows(folder))
    write_lines(folder / "gguf.jsonl", gguf_rows(folder))
    gguf = AutoTokenizer.from_pretrained(models / "smollm2-135m", gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")
    # transformers takes GPT-2's cut for "smollm" vocabularies, which differs at numbers alone.
    plain = [t for t in texts(2000, False) if not any(unicodedata.category(c).startswith("N") for c in t)]
    write_lines(folder / "transformers.jsonl", [{"text": t, "ids": gguf(t, add_special_tokens=False)["input_ids"]} for t in plain])

    ours = tokenizers.Tokenizer.from_file(str(folder / "smollm.json"))
    rows = []
    for messages in conversations():
        whole, prompt = (gguf.apply_chat_template(messages, tokenize=False, add_generation_prompt=p) for p in (False, True))
        rows.append({"messages": messages, "ids": ours.encode(whole).ids, "prompt": ours.encode(prompt).ids})
    write_lines(folder / "chat.jsonl", rows)
    (folder / "chat_template.txt").write_text(gguf.chat_template, encoding="utf-8")


if __name__ == "__main__":
    main()
