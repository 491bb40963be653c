"""Tokenizers of the kinds that models come with, trained on the Python documentation or whatever text is given: the real ones cannot be shipped.

kinds(text) yields (name, tokenizer.json as a dict). The stages are those of the families' own files; see each for which.
"""

import base64
import json
import struct
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

MARK = "\u2581"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def lines(text):
    return text.splitlines(keepends=True)


def byte_level(text, expression, normalizer=None, size=6000):
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    cut = [pre_tokenizers.Split(Regex(expression), "isolated")] if expression else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not cut)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    special = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(lines(text), trainer)
    return tokenizer


def with_bos(tokenizer, bos, before=()):
    single = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))])
    tokenizer.post_processor = processors.Sequence([*before, single]) if before else single


def sentencepiece_bpe(text, special, bos, size=6000):
    """Merges that never cross a space, byte tokens for what is rare."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", MARK)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(MARK, "merged_with_next")
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=size, limit_alphabet=150, special_tokens=special + bytes_, show_progress=False)
    tokenizer.train_from_iterator(lines(text), trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [{**t, "normalized": False} for t in data["added_tokens"] if t["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    with_bos(tokenizer, bos)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tokenizer


def charsmap(pairs):
    """A precompiled_charsmap: a double array with a block of 256 places for each node, then the replacements."""
    root, texts = {}, b""
    for key, value in pairs.items():
        node = root
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[None] = len(texts)
        texts += value.encode() + b"\0"
    units, blocks = {}, 1

    def place(node, at, label):
        nonlocal blocks
        base, blocks = blocks * 256, blocks + 1
        units[at] = label | (None in node) << 8 | (at ^ base) << 10
        if None in node:
            units[base] = node[None] | 1 << 31
        for byte, child in node.items():
            if byte is not None:
                place(child, base ^ byte, byte)

    place(root, 0, 0)
    trie = b"".join(struct.pack("<I", units.get(i, 0)) for i in range(blocks * 256))
    return struct.pack("<I", len(trie)) + trie + texts


def nfkc_charsmap():
    """Some of what SentencePiece's nmt_nfkc does: compatibility characters, controls that vanish, spaces, two-letter keys."""
    pairs = {chr(c): "" for c in (*range(1, 9), 0x7F, 0x200B, 0xFEFF)}
    pairs.update({c: " " for c in "\t\n\r\u00a0\u2003\u3000\u2028"})
    for c in (*range(0xA8, 0xC0), *range(0x132, 0x180), 0x1C4, 0x1C6, *range(0x2070, 0x2090), *range(0x2460, 0x2474), *range(0xFB00, 0xFB07), *range(0xFF01, 0xFF5F)):
        pairs.setdefault(chr(c), unicodedata.normalize("NFKC", chr(c)))
    pairs.update({a + m: unicodedata.normalize("NFC", a + m) for a in "aeiounAEIOUN" for m in "\u0300\u0301\u0303\u0308"})
    return charsmap(pairs)


def unigram(text, special, size=3000):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(lines(text[:300_000]), trainer)
    # `tokenizers` reads numbers of 16 digits and more to the last bit but one: two ways to cut that are equally likely could come out otherwise.
    data = json.loads(tokenizer.to_str())
    data["model"]["vocab"] = [[piece, round(score, 12)] for piece, score in data["model"]["vocab"]]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def kinds(text):
    def out(name, tokenizer, **parts):
        return name, {**json.loads(tokenizer.to_str()), **parts}

    llama3 = byte_level(text, LLAMA3)
    with_bos(llama3, "<|begin_of_text|>", [processors.ByteLevel(trim_offsets=True, add_prefix_space=True)])
    data = json.loads(llama3.to_str())
    data["model"]["ignore_merges"] = True
    yield "llama3", data
    yield out("qwen2", byte_level(text, QWEN2, normalizers.NFC()))
    yield out("gpt4o", byte_level(text, GPT4O))
    yield out("bloom", byte_level(text, BLOOM))
    gpt2 = byte_level(text, None)
    yield out("gpt2", gpt2)
    roberta = Tokenizer.from_str(gpt2.to_str())
    roberta.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    roberta.post_processor = processors.RobertaProcessing(("<|im_end|>", 5), ("<|im_start|>", 4), trim_offsets=True, add_prefix_space=True)
    roberta.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=True)])
    yield out("roberta", roberta)
    roberta.post_processor = processors.RobertaProcessing(("<|im_end|>", 5), ("<|im_start|>", 4), trim_offsets=True, add_prefix_space=False)
    roberta.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    yield out("roberta-bare", roberta)

    special = ["<unk>", "<s>", "</s>"]
    llama2 = sentencepiece_bpe(text, special, "<s>")
    llama2.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    llama2.pre_tokenizer = None
    yield out("llama2-legacy", llama2)
    llama2.normalizer = None
    for scheme in ("first", "always", "never"):
        llama2.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        yield out(f"llama2-{scheme}", llama2)
    llama2.normalizer = normalizers.Strip()
    llama2.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    yield out("llama2-strip-first", llama2)
    data = json.loads(llama2.to_str())
    data["model"]["byte_fallback"] = False
    for fuse in (False, True):
        data["model"]["fuse_unk"] = fuse
        yield f"llama2-unknown-{fuse}", json.loads(json.dumps(data))
    # With one byte missing, characters fall back or are unknown.
    data["model"].update(byte_fallback=True, vocab={t: i for t, i in data["model"]["vocab"].items() if t != "<0xE4>"})
    yield "llama2-byte-missing", data
    gemma = sentencepiece_bpe(text, ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"], "<bos>")
    gemma.normalizer = normalizers.Replace(" ", MARK)
    gemma.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    gemma.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()])
    yield out("gemma", gemma)

    t5 = unigram(text, ["<pad>", "</s>", "<unk>"])
    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    t5.pre_tokenizer = split
    t5.normalizer = normalizers.Precompiled(nfkc_charsmap())
    t5.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    yield out("t5", t5)
    t5.normalizer = normalizers.Sequence([normalizers.Replace(Regex("``|''"), '"'), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Precompiled(nfkc_charsmap()), normalizers.Replace(Regex(" {2,}"), " ")])
    t5.pre_tokenizer = pre_tokenizers.Metaspace()
    yield out("albert", t5)
    t5.normalizer = normalizers.Nmt()
    t5.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    yield out("unigram-whole", t5)
    t5.normalizer = None
    t5.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.UnicodeScripts(), pre_tokenizers.Metaspace(prepend_scheme="first")])
    yield out("scripts", t5)
    data = json.loads(t5.to_str())
    data["model"]["byte_fallback"] = True
    data["model"]["vocab"] += [[f"<0x{b:02X}>", -20.0] for b in range(256)]
    data["decoder"] = json.loads(Tokenizer.from_str(json.dumps(json.loads(llama2.to_str()))).to_str())["decoder"]
    yield "unigram-bytes", data

    clip = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    clip.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    clip.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CLIP), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    clip.train_from_iterator(lines(text[:1_000_000]), trainers.BpeTrainer(vocab_size=3000, end_of_word_suffix="</w>", special_tokens=["<|startoftext|>", "<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    clip.post_processor = processors.RobertaProcessing(("<|endoftext|>", 1), ("<|startoftext|>", 0), trim_offsets=False, add_prefix_space=False)
    clip.decoder = decoders.BPEDecoder()
    yield out("clip", clip)
    bert_bpe = Tokenizer(models.BPE(unk_token="[UNK]", continuing_subword_prefix="##"))
    bert_bpe.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    bert_bpe.train_from_iterator(lines(text[:300_000]), trainers.BpeTrainer(vocab_size=2000, continuing_subword_prefix="##", special_tokens=["[UNK]"], limit_alphabet=80, show_progress=False))
    bert_bpe.decoder = decoders.CTC(pad_token="[UNK]", word_delimiter_token="e")
    yield out("bpe-prefix", bert_bpe)
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.CharDelimiterSplit("-"), pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("merged_with_previous")])
    words.train_from_iterator(lines(text[:1_000_000]), trainers.WordLevelTrainer(vocab_size=3000, special_tokens=["<unk>"], show_progress=False))
    yield out("word-level", words)
    fixed = Tokenizer.from_str(gpt2.to_str())
    fixed.normalizer = normalizers.Sequence([normalizers.Strip(left=False), normalizers.ByteLevel()])
    fixed.pre_tokenizer = pre_tokenizers.FixedLength(4)
    fixed.add_tokens([AddedToken("größe", normalized=True)])
    yield out("fixed", fixed)
