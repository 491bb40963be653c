"""What tests of sources share: recipes, a data file as texts, and the text that a value of a table becomes."""
import json
import math

import h5py
import numpy

from tiny import check

MISSING = None


def byte_tokenizer(path):
    """Every byte is a token, and <|end|> stands around every text, so that one letter alone is a sample of a corpus."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<|end|> $A <|end|>", special_tokens=[("<|end|>", 256)])
    tokenizer.save(str(path))
    return tokenizer


def as_text(value, single=False):
    """The field that a value of a table becomes: a text, a number where how it is written may differ, or MISSING. single: a float of 32 bits."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return MISSING
    if isinstance(value, float):
        return numpy.float32(value) if single else value
    return str(value)


def same(got, expected):
    """Numbers are written in few digits, and how exponents are written may differ."""
    if isinstance(expected, numpy.float32):
        return numpy.float32(got) == expected and len(got) <= len(str(expected))
    return float(got) == expected and ("." in got or "e" in got) if isinstance(expected, float) else got == expected


class Reader:
    """Prepares sources in a workplace, skipping and listing bad rows."""

    def __init__(self, place, program):
        self.place, self.program, self.tokenizer = place, program, byte_tokenizer(place / "tokenizer.json")

    def prepare(self, kind, sources, head=""):
        """All records, in their order, become data.h5. sources: the lines of each."""
        text = f'name = "data"\nkind = "{kind}"\nlicence = "CC0-1.0"\noutput = "data.h5"\ntokenizer = "tokenizer.json"\n'
        text += f'on_error = "skip"\nlist_rejected = true\n{head}\n' + "".join(f"[[source]]\n{source}\n" for source in sources)
        (self.place / "data.toml").write_text(text + '[clean]\ndeduplicate = "none"\n[split]\nvalidation = 0\n')
        self.place.run(self.program, "prepare", "data.toml")

    def told(self):
        """Source, row and reason of every dropped record."""
        lines = (self.place / "data.h5.rejected.jsonl").read_text().split("\n")
        return [(one["source"], one["row"], one["reason"]) for one in map(json.loads, filter(None, lines))]

    def samples(self):
        """A dict of each sample, and the labels. Ragged columns are lists."""
        with h5py.File(self.place / "data.h5") as file:
            columns = {key: column[:] for key, column in file["train"].items()}
            labels = [label.decode() for label in file.attrs.get("labels", [])]
        ends = {key.removesuffix(".offsets"): columns.pop(key) for key in list(columns) if key.endswith(".offsets")}
        count = len(next(iter(ends.values()))) - 1
        part = lambda key, i: columns[key][ends[key][i]:ends[key][i + 1]].tolist() if key in ends else columns[key][i]
        return [{key: part(key, i) for key in columns} for i in range(count)], labels

    def text(self, tokens):
        return self.tokenizer.decode(tokens)

    def check_texts(self, sources, expected, what):
        """expected: of each source, a file and its column, the text of each row. Kept and told rows together are all rows."""
        self.prepare("corpus", [f'path = "{path}"\nfields = {{ text = "{column}" }}\n' for path, column in sources])
        kept, told = [self.text(one["tokens"]) for one in self.samples()[0]], self.told()
        whole = [one for texts in expected for one in texts if one is not MISSING and one != ""]
        check(len(kept) == len(whole), f"{what}: {len(kept)} texts are kept and {len(whole)} are there; told: {told[:3]}")
        for got, want in zip(kept, whole):
            check(same(got, want), f"{what}: {got!r} is kept and {want!r} stands there")
        missing = sum(one is MISSING or one == "" for texts in expected for one in texts)
        check(len(told) == missing, f"{what}: {missing} rows have no text and {len(told)} are told")

    def labels(self, sources, head="", field="label"):
        """What each kept row is labelled, and all labels in their order."""
        self.prepare("classification", [f'path = "{path}"\nfields = {{ text = "text", {field} = "{field}" }}\n' for path in sources], head)
        found, labels = self.samples()
        if field == "label":
            return [labels[int(one["label"])] for one in found], labels
        return [[labels[i] for i in one["labels"].reshape(-1).nonzero()[0]] for one in found], labels
