"""Recipes of datasets/: each is prepared, and its file compared with counts taken from the raw files without Attune, and with its card.

    recipes_test.py BUILD_FOLDER NAME...
"""
import gzip
import hashlib
import json
import re
import sys
import tomllib
from collections import Counter
from pathlib import Path

import h5py
import numpy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check

build = Path(sys.argv[1]).resolve()
source = Path(__file__).resolve().parent.parent.parent
program = build / "attune"
data = source / "data"
place = Workplace(build / "tests" / "recipes" / "-".join(sys.argv[2:]))


# --- What the raw files hold: for each recipe {split: number of records}, or their number in all; and labels, where there are some.

def foldoc():
    yield "recipe", {split: len((data / f"foldoc/{split}.jsonl").read_text().splitlines()) for split in ("train", "validation")}, None


def signs(name):
    """Label of each distinct snippet, from the published ratings."""
    rows = {}
    for line in (data / f"vader/{name}_GroundTruth.txt").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.strip():
            _, rating, text = line.split("\t", 2)
            if abs(float(rating)) >= 0.05:
                rows.setdefault(" ".join(text.split()), float(rating) > 0)
    return rows


def vader():
    movie = signs("movieReviewSnippets")
    train = len(movie) * 8 // 10
    yield "recipe", {"train": train, "validation": len(movie) - train}, Counter(movie.values())
    train_rows = {tuple(line.split("\t")) for line in (data / "vader/train.tsv").read_text().splitlines()[1:]}
    for recipe, name in (("amazon", "amazonReviewSnippets"), ("nyt", "nytEditorialSnippets"), ("tweets", "tweets")):
        new = {text: sign for text, sign in signs(name).items() if (text, "positive" if sign else "negative") not in train_rows}
        yield recipe, {"train": train, "validation": len(new)}, None


def newsgroups():
    seen, parts, labels = set(), {}, Counter()
    for part in ("train", "test"):
        rows = [tuple(line.split("\t")) for line in (data / f"newsgroups/{part}.tsv").read_text().splitlines()[1:]]
        parts[part] = [row for row in dict.fromkeys(rows) if row not in seen]
        seen.update(rows)
        labels.update(label for label, _ in parts[part])
    yield "recipe", {"train": len(parts["train"]), "validation": len(parts["test"])}, labels


def idx(path):
    raw = gzip.decompress((data / "fashion-mnist" / path).read_bytes())
    shape = [int.from_bytes(raw[4 + 4 * i:8 + 4 * i], "big") for i in range(raw[3])]
    return numpy.frombuffer(raw, numpy.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def fashion_mnist():
    labels = {"train": idx("train-labels-idx1-ubyte.gz"), "validation": idx("t10k-labels-idx1-ubyte.gz")}
    yield "recipe", {split: len(values) for split, values in labels.items()}, Counter(str(label) for values in labels.values() for label in values)


def alpaca():
    rows = json.loads((data / "alpaca/alpaca_en_demo.json").read_text())
    yield "recipe", len({(row["instruction"], row["input"], row["output"]) for row in rows if row["output"].strip()}), None


def dpo():
    rows = json.loads((data / "dpo/dpo_en_demo.json").read_text())
    yield "recipe", len({json.dumps([row["conversations"], row["chosen"], row["rejected"]]) for row in rows if row["chosen"] != row["rejected"]}), None


def pydocs():
    """Documents become windows, which only a tokenizer can count: the `tokenizers` package's."""
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source / "models/smollm2-135m", gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf").backend_tokenizer
    # The GGUF says "smollm", digits one by one, of which transformers knows nothing.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    texts = [json.loads(line)["text"] for line in (data / "pydocs/documents.jsonl").read_text(encoding="utf-8").splitlines()]
    lengths = [len(one.ids) for one in tokenizer.encode_batch(texts, add_special_tokens=False)]
    windows = sum(-(-length // 512) - (length % 512 == 1) for length in lengths if length > 1)
    yield "recipe", windows, None


# --- What Attune made of them

def check_file(path, kind):
    """As anyone opens it; returns samples by split and the labels of all."""
    samples, labels = {}, Counter()
    with h5py.File(path) as file:
        check(file.attrs["format"] == b"attune-dataset" and file.attrs["kind"].decode() == kind and file.attrs["licence"], f"{path.name} says what it is")
        names = [name.decode() for name in file.attrs.get("labels", [])]
        for name, split in file.items():
            total = hashlib.sha256()
            for column in sorted(split):
                total.update(column.encode() + b"\0")
                total.update(split[column][()].tobytes())
            check(total.hexdigest() == split.attrs["sha256"].decode(), f"the sha256 of {name} holds")
            ragged = [column for column in split if f"{column}.offsets" in split]
            sizes = {len(split[f"{column}.offsets"]) - 1 for column in ragged} | {len(split[c]) for c in split if c not in ragged and not c.endswith(".offsets")}
            check(len(sizes) == 1, f"all columns of {name} have as many samples: {sizes}")
            samples[name] = sizes.pop()
            if "label" in split:
                labels.update(names[label] for label in split["label"][()])
        rejected = json.loads(file.attrs["rejected"])
    return samples, labels, {reason: entry["count"] for reason, entry in rejected.items()}


def card_rows(folder):
    """Of the card: "8,442 to train on, 2,111 to validate"."""
    found = re.search(r"([\d,]+) to train on, ([\d,]+) to validate", (folder / "card.md").read_text())
    check(found, f"{folder.name}/card.md says how many rows train and validate")
    return {split: int(number.replace(",", "")) for split, number in zip(("train", "validation"), found.groups())}


for name in sys.argv[2:]:
    folder = source / "datasets" / name
    for recipe, records, labels in globals()[name.replace("-", "_")]():
        kind = tomllib.loads((folder / f"{recipe}.toml").read_text())["kind"]
        output = place / f"{name}-{recipe}.h5"
        place.run(program, "prepare", folder / f"{recipe}.toml", f"output={output}", timeout=600)
        samples, found, rejected = check_file(output, kind)
        print(f"{name}/{recipe}: {samples}, rejected {rejected}", flush=True)
        too_long = sum(count for reason, count in rejected.items() if "longer than" in reason or "too long" in reason)
        if isinstance(records, dict):
            check(samples == records, f"{name}/{recipe}: the raw files hold {records}")
        else:
            check(sum(samples.values()) + too_long == records, f"{name}/{recipe}: the raw file holds {records}")
        if labels:
            expected = Counter({{True: "positive", False: "negative"}.get(label, label): count for label, count in labels.items()})
            check(found == expected, f"{name}/{recipe}: the labels are {expected}, not {found}")
        if recipe == "recipe":
            check(samples == card_rows(folder), f"{name}/card.md says {card_rows(folder)}")
        tokenizer = [] if kind == "images" else ["--tokenizer", source / ("models/minilm" if kind == "classification" else "models/smollm2-135m")]
        said = place.run(program, "inspect", output, *tokenizer)
        check("the SHA-256 of every split matches" in said and said.count("\n  row ") == 10, f"{name}/{recipe}: inspect shows ten samples: {said}")

if "fashion-mnist" in sys.argv[2:]:
    with h5py.File(place / "fashion-mnist-recipe.h5") as file:
        for split, images in (("train", "train-images-idx3-ubyte.gz"), ("validation", "t10k-images-idx3-ubyte.gz")):
            check((file[split]["pixels"][()][..., 0] == idx(images)).all(), f"every pixel of {split} is there, in order")
