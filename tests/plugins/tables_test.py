"""Sources against the libraries that wrote them: random tables from pyarrow, Python's csv and json, and what these read back.

    tables_test.py BUILD_FOLDER [TABLES]
"""
import csv
import datetime
import decimal
import io
import json
import math
import random
import sys
from pathlib import Path

import numpy
import pandas
import pyarrow
import pyarrow.csv
import pyarrow.parquet

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from inputs import MISSING, Reader, as_text
from tiny import Workplace, check

build, tables = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 3
place = Workplace(build / "tests" / "tables")
reader = Reader(place, build / "attune")

LETTERS = ["a", "Z", "0", " ", "\t", '"', "'", ",", ";", "\n", "\r\n", "\\", "\u2028", "\u2029", "\u0085", "\ufeff", "\u00e9", "\u4e2d", "\U0001F600", "nan", "null", "NA", "[", "{"]


def text(rng):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(0, 8)))


def number(rng):
    return rng.choice([0.0, -0.0, 1.0, -3.0, 0.1, 1e300, -2.5e-7, 1e16, 123456789.0, math.inf, -math.inf, math.nan, rng.uniform(-9, 9)])


def moment(rng, microseconds):
    base = datetime.datetime(1969, 12, 31) + datetime.timedelta(seconds=rng.randint(0, 2_000_000_000))
    return base + datetime.timedelta(microseconds=rng.choice([0, 0, 1000, 120000]) + (rng.randint(0, 999) if microseconds else 0))


UTC = datetime.timezone.utc
COLUMNS = {  # Arrow's type and a random value of it
    "string": (pyarrow.string(), text),
    "large_string": (pyarrow.large_string(), text),
    "dictionary": (pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), lambda rng: rng.choice(["one", "two", "three \u2028"])),
    "numbers by name": (pyarrow.dictionary(pyarrow.int32(), pyarrow.int64()), lambda rng: rng.choice([1, 2, 3])),
    "binary": (pyarrow.binary(), lambda rng: rng.choice([text(rng).encode(), b"\xff\xfe", b"caf\xe9"])),
    "large_binary": (pyarrow.large_binary(), lambda rng: text(rng).encode()),
    "fixed_binary": (pyarrow.binary(3), lambda rng: rng.choice([b"abc", b"\x80bc"])),
    "bool": (pyarrow.bool_(), lambda rng: rng.random() < 0.5),
    "int8": (pyarrow.int8(), lambda rng: rng.randint(-128, 127)),
    "int64": (pyarrow.int64(), lambda rng: rng.choice([0, -1, 2**53 + 1, -(2**63), 2**63 - 1])),
    "uint64": (pyarrow.uint64(), lambda rng: rng.choice([0, 2**64 - 1])),
    "float": (pyarrow.float32(), lambda rng: float(numpy.float32(min(max(number(rng), -3e38), 3e38) if math.isfinite(n := number(rng)) else n))),
    "double": (pyarrow.float64(), number),
    "decimal": (pyarrow.decimal128(12, 3), lambda rng: decimal.Decimal(rng.randint(-10**6, 10**6)).scaleb(-3)),
    "date": (pyarrow.date32(), lambda rng: moment(rng, False).date()),
    "time": (pyarrow.time64("us"), lambda rng: moment(rng, True).time()),
    "timestamp_s": (pyarrow.timestamp("s"), lambda rng: moment(rng, False).replace(microsecond=0)),
    "timestamp_ms": (pyarrow.timestamp("ms"), lambda rng: moment(rng, False)),
    "timestamp_us": (pyarrow.timestamp("us"), lambda rng: moment(rng, True)),
    "timestamp_utc": (pyarrow.timestamp("us", "UTC"), lambda rng: moment(rng, True).replace(tzinfo=UTC)),
    "null": (pyarrow.null(), lambda rng: None),
}


def random_table(rng, rows):
    columns = {}
    for name, (kind, value) in COLUMNS.items():
        values = [None if rng.random() < 0.15 else value(rng) for _ in range(rows)]
        columns[name] = pyarrow.array(values, kind)
    return pyarrow.table(columns)


# --- Parquet: every type that pyarrow writes, as pyarrow reads it back

for seed in range(tables):
    rng = random.Random(seed)
    pyarrow.parquet.write_table(random_table(rng, 40), place / "all.parquet", row_group_size=rng.choice([7, 40]), use_dictionary=rng.random() < 0.5)
    back = pyarrow.parquet.read_table(place / "all.parquet").to_pydict()
    names = [name for name in COLUMNS if any(as_text(value, name == "float") not in (MISSING, "") for value in back[name])]
    reader.check_texts([("all.parquet", name) for name in names], [[as_text(value, name == "float") for value in back[name]] for name in names], f"Parquet, seed {seed}")
print("ok Parquet", flush=True)

# --- CSV and TSV of texts, as csv reads them back; JSON Lines, as json does

for seed in range(tables):
    rng = random.Random(1000 + seed)
    texts = [text(rng) for _ in range(60)] + ["plain"]
    pyarrow.csv.write_csv(pyarrow.table({"text": texts, "other": [text(rng) for _ in texts]}), place / "arrow.csv")
    with (place / "python.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, quoting=rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        writer.writerows([["text", "other"], *([one, "x"] for one in texts)])
    plain = [one.replace("\t", " ").replace("\n", " ").replace("\r", " ") for one in texts]
    (place / "plain.tsv").write_bytes(("text\tother\r\n" + "".join(f"{one}\tx\r\n" for one in plain)).encode())
    for escape in (True, False):
        (place / f"lines-{escape}.jsonl").write_text("".join(json.dumps({"text": one}, ensure_ascii=escape) + "\r\n" for one in texts), newline="")
    (place / "list.json").write_text(json.dumps([{"text": one} for one in texts], indent=rng.choice([None, 1])))

    def read(name):
        return [row["text"] for row in csv.DictReader(io.StringIO((place / name).read_bytes().decode("utf-8-sig"), newline=""))]

    check(read("arrow.csv") == texts and read("python.csv") == texts, "Python reads back what was written")
    files = ["arrow.csv", "python.csv", "lines-True.jsonl", "lines-False.jsonl", "list.json"]
    reader.check_texts([(name, "text") for name in files] + [("plain.tsv", "text")], [texts] * len(files) + [plain], f"texts, seed {seed}")
print("ok texts", flush=True)


# --- Labels: one name for a number in every type and file

for seed in range(tables):
    rng = random.Random(2000 + seed)
    numbers = [rng.choice([-1, 0, 1, 2, 10, 100]) for _ in range(20)]
    texts = [f"t{i}" for i in range(len(numbers))]
    write = lambda name, values: pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": values}), place / name)
    kinds = [pyarrow.int8(), pyarrow.int64(), pyarrow.float32(), pyarrow.float64(), pyarrow.float16()]
    for i, kind in enumerate(kinds):
        values = numpy.array(numbers, numpy.float16) if kind == pyarrow.float16() else numbers
        write(f"label{i}.parquet", pyarrow.array(values, kind))
    (place / "whole.csv").write_text("text,label\n" + "".join(f"{one},{value}\n" for one, value in zip(texts, numbers)))
    (place / "real.csv").write_text("text,label\n" + "".join(f"{one},{float(value)}\n" for one, value in zip(texts, numbers)))
    (place / "real.jsonl").write_text("".join(json.dumps({"text": one, "label": float(value)}) + "\n" for one, value in zip(texts, numbers)))
    sources = [f"label{i}.parquet" for i in range(len(kinds))] + ["whole.csv", "real.csv", "real.jsonl"]
    got, labels = reader.labels(sources)
    check(labels == [str(value) for value in sorted(set(numbers))], f"labels, as numbers: {labels}")
    check(got == [str(value) for value in numbers] * len(sources), f"every row has its label: {got}")
    got, labels = reader.labels(["real.csv"])
    check(got == [str(float(value)) for value in numbers], "labels of one table alone stay the texts that they are")

    lists = [rng.sample([2, 3, 10, 17], rng.randint(0, 3)) for _ in texts]
    for i, kind in enumerate([pyarrow.list_(pyarrow.int32()), pyarrow.large_list(pyarrow.int64()), pyarrow.list_(pyarrow.float64()), pyarrow.list_(pyarrow.string())]):
        values = [[str(one) for one in some] for some in lists] if i == 3 else lists
        pyarrow.parquet.write_table(pyarrow.table({"text": texts, "labels": pyarrow.array(values, kind)}), place / f"labels{i}.parquet")
    (place / "labels.jsonl").write_text("".join(json.dumps({"text": one, "labels": some}) + "\n" for one, some in zip(texts, lists)))
    with (place / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "labels"], *zip(texts, lists)])
    sources = [*(f"labels{i}.parquet" for i in range(4)), "labels.jsonl", "labels.csv"]
    got, labels = reader.labels(sources, 'target = "labels"', "labels")
    check(labels == [str(one) for one in sorted({one for some in lists for one in some})], f"labels of lists: {labels}")
    check(got == [[str(one) for one in sorted(some)] for some in lists] * len(sources), f"every row has its labels: {got}")
print("ok labels", flush=True)

# What pandas and pyarrow write of booleans, big numbers, row labels and durations

table = pandas.DataFrame({"text": ["yes it is", "no it is not", "again"], "label": [True, False, True]})
table.to_csv(place / "flags.csv", index=False)
table.to_parquet(place / "flags.parquet")
table.to_json(place / "flags.jsonl", orient="records", lines=True)
got, labels = reader.labels(["flags.csv", "flags.parquet", "flags.jsonl"])
check(labels == ["false", "true"] and got == ["true", "false", "true"] * 3, f"a boolean is one label in every file: {labels}, {got}")
got, labels = reader.labels(["flags.csv"])
check(labels == ["False", "True"] and got == ["True", "False", "True"], f"labels of one table alone stay the texts that they are: {labels}")

big = [2**53 + 1, 2**53, 2**63 + 7, 2**64 - 1, 5]
pyarrow.parquet.write_table(pyarrow.table({"text": ["big"] * len(big), "label": pyarrow.array(big, pyarrow.uint64())}), place / "big.parquet")
(place / "big.csv").write_text("text,label\n" + "".join(f"big,{one}\n" for one in big))
(place / "big.jsonl").write_text("".join(json.dumps({"text": "big", "label": one}) + "\n" for one in big))
got, labels = reader.labels(["big.parquet", "big.csv", "big.jsonl"])
check(labels == [str(one) for one in sorted(big)] and got == [str(one) for one in big] * 3, f"big numbers stay apart: {labels}")
(place / "long.jsonl").write_text('{"text": 12345678901234567890123}\n{"text": -12345678901234567890}\n{"text": "a 12345678901234567890123"}\n{"text": 18446744073709551615}\n{"text": 1e30}\n')
reader.prepare("corpus", ['path = "long.jsonl"\n'])
check([row for _, row, reason in reader.told() if reason == "a number of more than 64 bits"] == [1, 2], f"numbers that would be rounded are told: {reader.told()}")
check(len(reader.samples()[0]) == 3, "the other rows are kept")

for file, write in {"index.parquet": lambda rows: rows.to_parquet(place / "index.parquet"), "index.csv": lambda rows: rows.to_csv(place / "index.csv")}.items():
    write(pandas.DataFrame({"text": ["twice", "twice", "once"]}, index=[7, 8, 9]))
    reader.prepare("corpus", [f'path = "{file}"\n'])
    text = (place / "data.toml").read_text().replace('deduplicate = "none"', 'deduplicate = "exact"')
    (place / "data.toml").write_text(text)
    place.run(build / "attune", "prepare", "data.toml")
    check([reader.text(one["tokens"]) for one in reader.samples()[0]] == ["twice", "once"], f"{file}: row labels of pandas are no field")
pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([datetime.timedelta(1)], pyarrow.duration("s")), "other": ["a"]}), place / "duration.parquet")
reader.prepare("corpus", ['path = "duration.parquet"\nfields = { text = "text" }\n', 'path = "plain.tsv"\nfields = { text = "text" }\n'])
check(("duration.parquet", 1, "a field that is not text") in reader.told(), f"a duration is no text: {reader.told()[:3]}")

(place / "vectors.jsonl").write_text('{"text": "a", "labels": [0, 1, 1]}\n{"text": "b", "labels": [0, 1]}\n{"text": "c", "labels": ["x", ""]}\n{"text": "d", "labels": ["x", "x"]}\n')
reader.labels(["vectors.jsonl"], 'target = "labels"', "labels")
check([(row, reason) for _, row, reason in reader.told()] == [(1, "a 0 or 1 for each label"), (3, "a label that is empty")], f"vectors are told: {reader.told()}")
(place / "mixed.csv").write_text('text,labels\na,"[1.0, 2.0]"\nb,"[2]"\n')
got, labels = reader.labels(["mixed.csv"], 'target = "labels"', "labels")
check(labels == ["1", "2"], f"whole labels have one name in a list's text, too: {labels}")
(place / "none.csv").write_text("text,labels\nnobody,[]\n")
reader.labels(["mixed.csv"], 'target = "labels"', "labels")
(place / "data.toml").write_text((place / "data.toml").read_text().replace("mixed.csv", "none.csv"))
check("no record has a label" in place.run(build / "attune", "prepare", "data.toml", expect=2), "labels that are all empty are refused")
print("ok pandas", flush=True)

words = ["10", "2", "nan", "1", "inf", "-1", "NA", "None", "null"]
(place / "words.csv").write_text("text,label\n" + "".join(f"t,{word}\n" for word in words))
got, labels = reader.labels(["words.csv"])
check(got == words and labels == sorted(words), f"words that look like numbers are texts: {labels}")
(place / "empty.csv").write_text("text,label\na,1\nb,\n")
reader.labels(["empty.csv"])
check(reader.told() == [("empty.csv", 3, "a label that is empty")], f"an empty label is told: {reader.told()}")

# Lists in other forms, structures and maps are conversations as well.
turns = [[{"role": "user", "content": f"say {i}", "name": None}, {"role": "assistant", "content": f"{i}", "name": None}] for i in range(5)]
pairs = pyarrow.list_(pyarrow.map_(pyarrow.string(), pyarrow.string()))
pyarrow.parquet.write_table(pyarrow.table({"messages": pyarrow.array([[[(k, v) for k, v in one.items() if v] for one in some] for some in turns], pairs)}), place / "maps.parquet")
pyarrow.parquet.write_table(pyarrow.table({"messages": pyarrow.array(turns)}), place / "structures.parquet")
two = pyarrow.list_(pyarrow.struct({"role": pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), "content": pyarrow.large_string()}), 2)
pyarrow.parquet.write_table(pyarrow.table({"messages": pyarrow.array([[{k: one[k] for k in ("role", "content")} for one in some] for some in turns], two)}), place / "fixed.parquet")
files = ["maps.parquet", "structures.parquet", "fixed.parquet"]
reader.prepare("instruction", [f'path = "{name}"\nlayout = "messages"\n' for name in files], 'template = "plain"\n')
kept = [one["tokens"] for one in reader.samples()[0]]
check(len(kept) == 15 and kept[:5] == kept[5:10] == kept[10:], f"structures, maps and lists of a fixed size are messages: {reader.told()}")
print("ok structures", flush=True)

# A recipe from Windows is the same recipe.
before = [one["tokens"] for one in reader.samples()[0]]
text = (place / "data.toml").read_text()
(place / "data.toml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
place.run(build / "attune", "prepare", "data.toml")
check([one["tokens"] for one in reader.samples()[0]] == before, "a recipe may have a byte order mark and CRLF")
print("ok recipe", flush=True)
