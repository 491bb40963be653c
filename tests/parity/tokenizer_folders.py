"""Writes model folders of every kind and the ids that AutoTokenizer gives for texts, for tokenizer_folders.cpp to compare with.

usage: tokenizer_folders.py FOLDER [SECONDS [SEED]]
Each folder NAME gets the files of a tokenizer, NAME/expected.jsonl: text, ids with the special tokens, ids without, and NAME/special.json:
the special tokens by the names that chat templates know. Without SECONDS the folders are fixed; with it, settings are drawn at random until the time is over.
The packages sentencepiece and tiktoken only read their files' fields here, so small readers take their place: transformers decides what is
made of the fields. ATTUNE_REAL_READERS=1 uses the packages themselves.
"""

import base64
import json
import os
import pathlib
import random
import struct
import sys
import time
import types

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import text_parity
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, convert_slow_tokenizer

transformers.logging.set_verbosity(transformers.logging.CRITICAL)
ROOT = pathlib.Path(__file__).resolve().parents[2]
MARK = "\u2581"
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEXTS = ["", " ", "Ich möchte", "ich MOCHTE", "中国 and 日本語", "a  b   c", " leading", "trailing ", "1234567 12", "It's THEY'LL", "line\n\n next\t",
         "<s> a </s>", "[CLS] x [SEP] [MASK]y", "<new> <new>two  <new>", "a <|im_start|>b<|endoftext|> c", "<mask> a<mask>", "``quoted'' text", "x<extra_id_0>y",
         "\u00a0nbsp\u3000wide", "e\u0301 ﬁ Å", "🙂🙂\u200d", "<unk><pad>[PAD]", "<bos>a<eos>", "newword Newword", "<0x41>", "▁a ▁"]


def corpus():
    return [line for page in sorted((ROOT / "docs").glob("*.md")) for line in page.read_text(encoding="utf-8").split("\n")] + text_parity.SAMPLES + TEXTS


# Vocabularies

def byte_level(special=("<|endoftext|>",)):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=900, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False))
    return tokenizer


def sentencepiece_bpe(special):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokens = [*special, *(f"<0x{b:02X}>" for b in range(256))]
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=1100, special_tokens=tokens, limit_alphabet=150, show_progress=False))
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] in special]
    return Tokenizer.from_str(json.dumps(data))


def unigram(special, unknown):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=700, special_tokens=list(special), unk_token=unknown, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def wordpiece(special=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=list(special), limit_alphabet=200, show_progress=False)
    tokenizer.train_from_iterator(corpus() + ["möchte Möchte mochte 中国 国"] * 30, trainer)
    words = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    words += [word for word in ("möchte", "mochte", "Möchte", "中国", "##国", "中", "ich", "Ich") if word not in words]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([token for token in special])
    return tokenizer, words


# Files

def varint(number):
    number &= (1 << 64) - 1
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number, value):
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def sentencepiece_model(pieces, kind, byte_fallback=False, charsmap=b"", unk_id=0, bos_id=1, eos_id=2):
    """The bytes of a model, and the same as the object that the protobuf package makes of them. pieces: (text, score, type)."""
    trainer = field(3, kind) + field(35, int(byte_fallback)) + field(40, unk_id) + field(41, bos_id) + field(42, eos_id)
    data = b"".join(field(1, field(1, text) + field(2, float(score)) + field(3, which)) for text, score, which in pieces)
    data += field(2, trainer) + field(3, field(1, "identity") + (field(2, charsmap) if charsmap else b"") + field(3, 1))
    rounded = lambda score: struct.unpack("<f", struct.pack("<f", score))[0]
    proto = types.SimpleNamespace(
        pieces=[types.SimpleNamespace(piece=t, score=rounded(s), type=w) for t, s, w in pieces],
        trainer_spec=types.SimpleNamespace(model_type=kind, byte_fallback=byte_fallback, unk_id=unk_id, bos_id=bos_id, eos_id=eos_id, unk_piece="<unk>", bos_piece="<s>", eos_piece="</s>"),
        normalizer_spec=types.SimpleNamespace(precompiled_charsmap=charsmap))
    return data, proto


PROTOS = {}  # by path


def use_small_readers():
    def extractor(self, model):
        self.proto = PROTOS[str(model)]

    def ranks(path):
        lines = pathlib.Path(path).read_bytes().split(b"\n")
        return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}

    convert_slow_tokenizer.SentencePieceExtractor.__init__ = extractor
    convert_slow_tokenizer.TikTokenConverter.load_tiktoken_bpe = staticmethod(ranks)


def tiktoken_lines(tokenizer):
    """Ranks in which merging is possible: bytes first, then tokens in the order of merging."""
    back = {c: b for b, c in convert_slow_tokenizer.bytes_to_unicode().items()}
    tokens = [t for t, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]) if all(c in back for c in t)]
    tokens = sorted((bytes(back[c] for c in t) for t in tokens), key=lambda b: len(b) > 1)
    return tokens


class Writer:
    def __init__(self, root, texts):
        self.root, self.texts, self.names = root, texts, []

    def folder(self, name, files, proto=None):
        """files: name to text, bytes or JSON. A folder that AutoTokenizer cannot read has no expected.jsonl."""
        folder = self.root / name
        folder.mkdir(parents=True)
        for file, content in files.items():
            if content is None:
                continue
            if not isinstance(content, (str, bytes)):
                content = json.dumps(content)
            (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
            if proto is not None and file.endswith(".model"):
                PROTOS[str(folder / file)] = proto
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            rows = [{"text": t, "ids": tokenizer(t)["input_ids"], "plain": tokenizer(t, add_special_tokens=False)["input_ids"]} for t in self.texts]
        except Exception as error:  # AutoTokenizer's refusals are of many types
            (folder / "refused.txt").write_text(f"{type(error).__name__}: {error}")
            return
        special = {name: str(text) for name, text in tokenizer.special_tokens_map.items() if not isinstance(text, list)}
        (folder / "special.json").write_text(json.dumps(special))
        (folder / "expected.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def token(content, **flags):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True, **flags}


def fixed(writer, stock):
    """Every file and key, one by one."""
    write = writer.folder
    words, bert = "\n".join(stock["words"]) + "\n", {"model_type": "bert"}
    for name, config in {"usual": {}, "cased": {"do_lower_case": False}, "accents": {"strip_accents": False}, "cased-stripped": {"do_lower_case": False, "strip_accents": True},
                         "whole": {"do_lower_case": False, "tokenize_chinese_chars": False}, "null": {"strip_accents": None}, "unknown": {"unk_token": "ich"},
                         "marks": {"cls_token": "ich", "sep_token": "[MASK]"}, "decoder": {"added_tokens_decoder": {"5": token("<new>"), "2000": token("newword", special=False, normalized=True)}},
                         "mask": {"mask_token": {"__type": "AddedToken", **token("[MASK]", lstrip=True)}}, "extra": {"additional_special_tokens": ["<new>", "möchte"]},
                         "own": {"image_token": "<new>", "extra_special_tokens": {"video": "newword"}}}.items():
        write(f"vocab-{name}", {"vocab.txt": words, "tokenizer_config.json": config, "config.json": bert})
        write(f"bert-json-{name}", {"tokenizer.json": stock["bert"].to_str(), "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", **config}})
    legacy = {"special_tokens_map.json": {"mask_token": {**token("[MASK]", lstrip=True)}, "unk_token": "[UNK]"}, "added_tokens.json": {"newword": 2001, "<new>": 2000}}
    write("vocab-legacy", {"vocab.txt": words, "config.json": bert, **legacy})
    write("bert-json-legacy", {"tokenizer.json": stock["bert"].to_str(), "config.json": bert, **legacy})
    write("vocab-spaces", {"vocab.txt": words.replace("\n", " \t\r\n", 40), "config.json": bert})
    for kind in ("distilbert", "electra", "mpnet", "convbert"):
        write(f"vocab-{kind}", {"vocab.txt": "<s>\n</s>\n<pad>\n<mask>\n" + words, "config.json": {"model_type": kind}})
        write(f"json-{kind}", {"tokenizer.json": stock["bert"].to_str(), "config.json": {"model_type": kind}})
    merges = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in stock["merges"])
    for kind in ("GPT2Tokenizer", "Qwen2Tokenizer", "RobertaTokenizer", "GPTNeoXTokenizerFast", "CohereTokenizer", "CLIPTokenizer", "DebertaTokenizer", "BartTokenizer", "CodeGenTokenizer", "Qwen3_5Tokenizer"):
        for name, config in {"": {}, "-prefix": {"add_prefix_space": True}, "-bos": {"add_bos_token": True, "add_eos_token": True}, "-mask": {"mask_token": {"__type": "AddedToken", **token("<mask>", lstrip=True)}}}.items():
            config = {"tokenizer_class": kind, **config}
            write(f"{kind}{name}", {"vocab.json": stock["byte_vocab"], "merges.txt": merges, "tokenizer_config.json": config})
            write(f"{kind}{name}-json", {"tokenizer.json": stock["byte_json"], "tokenizer_config.json": config, "config.json": {"model_type": "llama"}})
    for kind in ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "PreTrainedTokenizerFast", None):
        for name, config in {"": {}, "-legacy": {"legacy": True}, "-bare": {"add_prefix_space": False}, "-bos": {"add_bos_token": True}, "-eos": {"add_bos_token": False, "add_eos_token": True},
                             "-decoder": {"added_tokens_decoder": {"3": token("<new>", normalized=True, special=False), "9999": token("newword")}}}.items():
            config = {"tokenizer_class": kind, **config} if kind else config
            data, proto = stock["bpe_model"]
            write(f"model-{kind}{name}", {"tokenizer.model": data, "tokenizer_config.json": config, "config.json": {"model_type": "llama"}}, proto)
            write(f"json-{kind}{name}", {"tokenizer.json": stock["llama_json"], "tokenizer_config.json": config, "config.json": {"model_type": "mistral"}})
            write(f"json-bytes-{kind}{name}", {"tokenizer.json": stock["byte_json"], "tokenizer_config.json": config, "config.json": {"model_type": "llama"}})
    for kind, file in (("T5Tokenizer", "spiece.model"), ("AlbertTokenizer", "spiece.model"), ("XLMRobertaTokenizer", "sentencepiece.bpe.model"), ("CamembertTokenizer", "sentencepiece.bpe.model"),
                       ("DebertaV2Tokenizer", "spm.model"), (None, "tokenizer.model"), ("LlamaTokenizer", "tokenizer.model")):
        for name, config in {"": {}, "-case": {"do_lower_case": False, "keep_accents": True, "split_by_punct": True}, "-bare": {"add_prefix_space": False}, "-extra": {"extra_ids": 5, "additional_special_tokens": ["<new>"]}}.items():
            config = {"tokenizer_class": kind, **config} if kind else config
            data, proto = stock["unigram_model"]
            write(f"spiece-{kind}{name}", {file: data, "tokenizer_config.json": config}, proto)
            write(f"unigram-{kind}{name}", {"tokenizer.json": stock["unigram_json"], "tokenizer_config.json": config})
    tiktoken = b"".join(base64.b64encode(t) + b" %d\n" % i for i, t in enumerate(stock["ranks"]))
    for name, config in {"": {}, "-special": {"added_tokens_decoder": {str(len(stock["ranks"]) + 2): token("<new>")}, "bos_token": "<new>", "add_bos_token": True}, "-extra": {"extra_special_tokens": ["<new>", "newword"]}}.items():
        for file in ("tokenizer.model", "tiktoken.model"):
            write(f"tiktoken-{file}{name}", {file: tiktoken, "tokenizer_config.json": config})
    special = [{"rank": i, "token_str": t, "is_control": True} for i, t in enumerate(("<unk>", "<s>", "</s>", "[INST]"))]
    tekken = {"config": {"pattern": QWEN, "num_vocab_tokens": len(stock["ranks"]), "default_vocab_size": len(stock["ranks"]) + 10, "default_num_special_tokens": 20, "version": "v3"},
              "vocab": [{"rank": i, "token_bytes": base64.b64encode(t).decode(), "token_str": None} for i, t in enumerate(stock["ranks"])], "special_tokens": special}
    write("tekken", {"tekken.json": tekken})
    write("tekken-bos", {"tekken.json": tekken, "tokenizer_config.json": {"bos_token": "<s>", "add_bos_token": True}, "config.json": {"model_type": "mistral"}})
    for name, config in {"bos": {"bos_token": "<new>", "add_bos_token": True}, "decoder": {"added_tokens_decoder": {"7": token("newword", special=False, normalized=True), "5": token("<new>", rstrip=True)}},
                         "strip": {"eos_token": {"__type": "AddedToken", **token("<new>", lstrip=True, rstrip=True)}}, "map": {"extra_special_tokens": ["<new>", "newword"], "image_token": "<extra_id_0>"}}.items():
        write(f"plain-{name}", {"tokenizer.json": stock["words_json"], "tokenizer_config.json": config})
    moved = json.loads(stock["words_json"])
    moved["added_tokens"] += [{"id": 5000, **token("<new>")}, {"id": 4000, **token("newword")}]
    write("plain-moved", {"tokenizer.json": moved})


def stock():
    """The vocabularies that the folders share."""
    result = {}
    result["bert"], result["words"] = wordpiece()
    result["bert"].post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    plain = byte_level(["<|endoftext|>", "<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|startoftext|>", "[CLS]", "[SEP]"])
    data = json.loads(plain.to_str())
    result["byte_vocab"], result["merges"] = data["model"]["vocab"], data["model"]["merges"]
    plain.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    plain.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    data = json.loads(plain.to_str())
    data["model"]["ignore_merges"] = True
    result["byte_json"] = json.dumps(data)
    result["ranks"] = tiktoken_lines(plain)
    llama = sentencepiece_bpe(["<unk>", "<s>", "</s>"])
    llama.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    llama.pre_tokenizer = None
    llama.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    llama.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    result["llama_json"] = llama.to_str()
    ordered = [t for t, _ in sorted(llama.get_vocab().items(), key=lambda item: item[1])]
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3}
    pieces = [(t, -float(i), kinds.get(t, 6 if t.startswith("<0x") else 1)) for i, t in enumerate(ordered)]
    pieces[300] = (pieces[300][0], pieces[300][1], 4)
    result["bpe_model"] = sentencepiece_model(pieces, 2, byte_fallback=True)
    likely = unigram(["<unk>", "<s>", "</s>", "<pad>", "<mask>", "[CLS]", "[SEP]"], "<unk>")
    charsmap = text_parity.text_kinds.nfkc_charsmap()
    likely.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " ")])
    result["unigram_json"] = likely.to_str()
    listed = json.loads(likely.to_str())["model"]["vocab"]
    pieces = [(t, s, {"<unk>": 2, "<s>": 3, "</s>": 3, "<pad>": 3, "[CLS]": 4}.get(t, 1)) for t, s in listed]
    result["unigram_model"] = sentencepiece_model(pieces, 1, charsmap=charsmap)
    simple = Tokenizer(models.WordLevel({w: i for i, w in enumerate(("<unk>", "a", "b", "Ich", "ich", "x", "y", "and", "<", "new", ">"))}, unk_token="<unk>"))
    simple.pre_tokenizer = pre_tokenizers.Whitespace()
    result["words_json"] = simple.to_str()
    return result


def drawn(writer, stock, rng, seconds):
    """Random files and settings until the time is over."""
    classes = ["BertTokenizer", "GPT2Tokenizer", "Qwen2Tokenizer", "RobertaTokenizerFast", "GPTNeoXTokenizer", "CohereTokenizer", "CLIPTokenizer", "LlamaTokenizerFast", "GemmaTokenizer", "T5Tokenizer",
               "XLMRobertaTokenizer", "CamembertTokenizer", "AlbertTokenizer", "DebertaV2Tokenizer", "PreTrainedTokenizerFast", "NoSuchTokenizer", None]
    types_ = ["bert", "gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma3_text", "phi3", "phi", "gpt_neox", "t5", "roberta", "granite", "starcoder2", "olmo2", "no-such-type", None]
    contents = ["<new>", "newword", "<s>", "</s>", "<unk>", "<pad>", "[MASK]", "a", "ich", "the", "<|im_start|>", "Möchte", "中国", " and", "x y"]
    jsons = [stock["bert"].to_str(), stock["byte_json"], stock["llama_json"], stock["unigram_json"], stock["words_json"]]
    merges = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in stock["merges"])
    pick = lambda *choices: rng.choice(choices)
    flags = lambda: {key: pick(True, False) for key in ("lstrip", "rstrip", "single_word", "normalized", "special") if rng.random() < 0.5}
    named = lambda: pick(rng.choice(contents), {"__type": "AddedToken", **token(rng.choice(contents), **flags())})
    end = time.time() + seconds
    while time.time() < end:
        config, kind = {}, rng.choice(classes)
        if kind:
            config["tokenizer_class"] = kind
        for key in ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_bos_token", "add_eos_token", "add_prefix_space", "legacy", "keep_accents", "split_by_punct"):
            if rng.random() < 0.2:
                config[key] = pick(True, False)
        for key in ("bos_token", "eos_token", "unk_token", "pad_token", "mask_token", "cls_token", "sep_token", "image_token"):
            if rng.random() < 0.15:
                config[key] = named()
        if rng.random() < 0.2:
            config[pick("additional_special_tokens", "extra_special_tokens")] = rng.sample(contents, 2)
        if rng.random() < 0.3:
            config["added_tokens_decoder"] = {str(rng.randrange(2000)): token(rng.choice(contents), **flags()) for _ in range(rng.randrange(4))}
        files = {"tokenizer_config.json": config if rng.random() < 0.9 else None}
        if model_type := rng.choice(types_):
            files["config.json"] = {"model_type": model_type}
        if rng.random() < 0.2:
            files["special_tokens_map.json"] = {key: pick(rng.choice(contents), token(rng.choice(contents), **flags())) for key in rng.sample(["bos_token", "mask_token", "unk_token"], 2)}
        if rng.random() < 0.2:
            files["added_tokens.json"] = {content: rng.randrange(2000) for content in rng.sample(contents, 2)}
        source, proto = rng.randrange(8), None
        if source < 5:
            files["tokenizer.json"] = jsons[source]
        elif source == 5:
            files |= {"vocab.txt": "\n".join(stock["words"]), "vocab.json": stock["byte_vocab"], "merges.txt": merges}
        else:
            data, proto = stock["bpe_model"] if source == 6 else stock["unigram_model"]
            files[pick("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")] = data
        writer.folder(f"drawn-{len(writer.names)}", files, proto)
        writer.names.append(files)


def main():
    root = pathlib.Path(sys.argv[1])
    if not os.environ.get("ATTUNE_REAL_READERS"):
        use_small_readers()
    rng = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 17)
    texts = TEXTS + [text_parity.random_text(rng) for _ in range(20)]
    texts += ["".join(rng.choice(["<new>", "newword", "a", " ", "  ", "Ich", "中国", "</s>", "<mask>", "x y", "[MASK]", "the"]) for _ in range(6)) for _ in range(20)]
    writer = Writer(root, texts)
    if len(sys.argv) > 2:
        drawn(writer, stock(), rng, float(sys.argv[2]))
    else:
        fixed(writer, stock())


if __name__ == "__main__":
    main()
