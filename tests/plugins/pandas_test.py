"""Sources against pandas: random tables that it writes, and what it reads back.

    pandas_test.py BUILD_FOLDER [TABLES]
"""
import csv
import random
import sys
from pathlib import Path

import pandas

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from inputs import MISSING, Reader, as_text
from tiny import Workplace, check

build, tables = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 2
place = Workplace(build / "tests" / "pandas")
reader = Reader(place, build / "attune")
WORDS = ["plain", "a, b", 'say "x"', "two\nlines", "tab\there", " led", "caf\u00e9", "\u2028", "\U0001F600", "NA", "null", "1.0", "back\\slash"]


def random_frame(rng, rows):
    whole = [rng.choice([0, 1, 2, 10]) for _ in range(rows)]
    gaps = [None if rng.random() < 0.2 else number for number in whole]
    moments = pandas.to_datetime([rng.choice([0, 10**9, 10**18 + 1, 10**18 + 1000, 1_234_567_890 * 10**9]) for _ in range(rows)])
    return pandas.DataFrame({
        "text": [rng.choice(WORDS) for _ in range(rows)], "label": whole, "gaps": gaps, "nullable": pandas.array(gaps, dtype="Int64"),
        "real": [rng.uniform(-5, 5) for _ in range(rows)], "flag": [rng.random() < 0.5 for _ in range(rows)], "when": moments,
        "category": pandas.Categorical([rng.choice(["x", "y z"]) for _ in range(rows)]),
        "holes": pandas.Series([rng.choice(["text", None]) for _ in range(rows)], dtype=object)})


def values(column):
    """As Python's own; what pandas has for a missing value is None."""
    return [None if pandas.isna(value) else value.item() if hasattr(value, "item") else value for value in column]


for seed in range(tables):
    rng = random.Random(seed)
    frame = random_frame(rng, 30)
    frame.to_parquet(place / "frame.parquet", index=rng.random() < 0.5)
    back = pandas.read_parquet(place / "frame.parquet")
    reader.check_texts([("frame.parquet", name) for name in frame.columns], [[as_text(value) for value in values(back[name])] for name in frame.columns], f"Parquet, seed {seed}")

    frame.to_csv(place / "frame.csv", index=False, lineterminator=rng.choice(["\n", "\r\n"]), encoding=rng.choice(["utf-8", "utf-8-sig"]))
    frame.to_csv(place / "semicolon.csv", sep=";", index=True, quoting=csv.QUOTE_NONNUMERIC)
    frame.to_json(place / "frame.jsonl", orient="records", lines=True, date_format="iso")
    frame.to_json(place / "frame.json", orient="records", force_ascii=False, date_format="iso")
    back = pandas.read_csv(place / "frame.csv", dtype=str, keep_default_na=False)
    check(list(back["text"]) == list(frame["text"]), "pandas reads back what it wrote")
    reader.check_texts([("frame.csv", name) for name in frame.columns], [list(back[name]) for name in frame.columns], f"CSV, seed {seed}")
    texts = list(frame["text"])
    reader.check_texts([(name, "text") for name in ("frame.jsonl", "frame.json")], [texts, texts], f"JSON, seed {seed}")
    reader.prepare("corpus", ['path = "semicolon.csv"\ndelimiter = ";"\nfields = { text = "text" }\n'])
    check([reader.text(one["tokens"]) for one in reader.samples()[0]] == texts, "with another delimiter and everything quoted")

    # The label is an integer in one file and, where a value is missing, a float in others.
    gaps = frame.assign(label=frame["gaps"])
    gaps.to_csv(place / "gaps.csv", index=False)
    gaps.to_parquet(place / "gaps.parquet")
    gaps.to_json(place / "gaps.jsonl", orient="records", lines=True, date_format="iso")
    got, labels = reader.labels(["frame.csv", "frame.parquet", "frame.jsonl", "gaps.csv", "gaps.parquet", "gaps.jsonl"])
    there = [str(number) for number in frame["label"]]
    with_gaps = [str(int(number)) for number in values(frame["gaps"]) if number is not MISSING]
    check(labels == [str(number) for number in sorted(set(frame["label"]))], f"one label for a number: {labels}")
    check(got == there * 3 + with_gaps * 3, f"every row has its label: {got}")
    check(len(reader.told()) == 3 * (len(there) - len(with_gaps)), "rows without a label are told")
print("ok", flush=True)
