"""attune prepare from outside: Parquet, a full disk, ends before the end, sources that changed.

    prepare_test.py BUILD_FOLDER
"""
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pyarrow
import pyarrow.parquet

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check, environment, over_ranks

build = Path(sys.argv[1]).resolve()
program = build / "attune"
place = Workplace(build / "tests" / "prepare")

letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
(place / "tokenizer.json").write_text(json.dumps({
    "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": None,
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
              "vocab": {word: i for i, word in enumerate(["[UNK]", *letters])}}}))


def recipe(path, more="", head="", of_source=""):
    """data.toml, which makes data.h5 of one source."""
    (place / "data.toml").write_text(f"""
name = "data"
kind = "classification"
licence = "CC0-1.0"
output = "data.h5"
tokenizer = "tokenizer.json"
{head}
[[source]]
path = "{path}"
{of_source}
{more}
""")


def prepare(ranks=1, expect=0, say=()):
    said = place.run(*over_ranks(ranks, program, "prepare", "data.toml"), expect=expect)
    for words in say:
        check(words in said, f"it says '{words}', but says:\n{said}")
    if expect:
        check(not (place / "data.h5.partial").exists(), "nothing is left behind")
    return said


def rows(count):
    return [{"text": " ".join(letters[(i * j) % 26] for j in range(1, 8 + i % 5)), "label": str(i % 3)} for i in range(count)]


# --- Parquet gives what JSON Lines gives

table = pyarrow.Table.from_pylist([row | {"label": int(row["label"])} for row in rows(5000)])
pyarrow.parquet.write_table(table, place / "data.parquet", row_group_size=700)
(place / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(5000)))
content = {}
for name, ranks in [("data.jsonl", 1), ("data.parquet", 1), ("data.parquet", 2)]:
    recipe(name, '[clean]\ndeduplicate = "none"')
    prepare(ranks)
    with h5py.File(place / "data.h5") as file:
        content[name, ranks] = [split.attrs["sha256"] for split in file.values()], list(file.attrs["labels"])
        check(len(file["train/label"]) + len(file["validation/label"]) == 5000, "every row is there")
check(len({str(one) for one in content.values()}) == 1, f"Parquet gives what JSON Lines gives: {content}")

conversations = [{"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{i}"}]} for i in range(40)]
pyarrow.parquet.write_table(pyarrow.Table.from_pylist(conversations), place / "chat.parquet")
recipe("chat.parquet", of_source='layout = "messages"', head='template = "plain"')
text = (place / "data.toml").read_text().replace('"classification"', '"instruction"')
(place / "data.toml").write_text(text)
prepare(say=["36 samples"])

(place / "broken.parquet").write_bytes((place / "data.parquet").read_bytes()[:-100])
recipe("broken.parquet")
prepare(expect=2, say=["broken.parquet: cannot be read as Parquet", "fetch it again"])
prepare(ranks=2, expect=2, say=["broken.parquet: cannot be read as Parquet"])
print("ok Parquet", flush=True)

# Without its library: one sentence that says how to get it.
elsewhere = place / "without_arrow"
elsewhere.mkdir()
for library in build.glob("libattune.so*"):
    shutil.copy(library, elsewhere / library.name, follow_symlinks=False)
recipe("data.parquet")


def without_arrow(*command):
    return subprocess.run([program, *command], cwd=place.folder, env=environment | {"LD_LIBRARY_PATH": str(elsewhere)}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


check("without Parquet)" in without_arrow("--version").stdout, "--version says so")
said = without_arrow("prepare", "data.toml")
check(said.returncode == 2 and "was built without Parquet; run launchers/setup, which installs Arrow" in said.stdout, said.stdout)
print("ok Parquet without Arrow", flush=True)

# --- A source that is not what it was

sum_of = hashlib.sha256((place / "data.jsonl").read_bytes()).hexdigest()
recipe("data.jsonl", of_source=f'sha256 = "{sum_of}"')
prepare()
with (place / "data.jsonl").open("a") as file:
    file.write(json.dumps({"text": "z z", "label": "1"}) + "\n")
for ranks in (1, 2):
    prepare(ranks, expect=2, say=["data.jsonl: its sha256 is", f"but the recipe expects {sum_of}"])
print("ok changed source", flush=True)

# --- A row that only the last rank reads

(place / "last.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(100_000)) + '{"text": "a b", "labl": "1"}\n')
recipe("last.jsonl", '[clean]\ndeduplicate = "none"', of_source='fields = { text = "text", label = "label" }')
for ranks in (1, 2):
    prepare(ranks, expect=2, say=["last.jsonl, row 100001: there is no field 'label' (those there: labl, text); did you mean 'labl'?"])
recipe("last.jsonl", '[clean]\ndeduplicate = "none"', head='on_error = "skip"', of_source='fields = { text = "text", label = "label" }')
prepare(2, say=["dropped 1: a field is missing (last.jsonl, row 100001:"])
print("ok a bad row at the end", flush=True)

# --- A full disk: a small tmpfs of this process's own, where the kernel lets us have one

full = place / "small"
full.mkdir()
recipe("last.jsonl", '[clean]\ndeduplicate = "none"', head='on_error = "skip"')
text = (place / "data.toml").read_text().replace('"data.h5"', '"small/data.h5"')
(place / "data.toml").write_text(text)
for size, ranks in [("2m", 1), ("2m", 2), ("20m", 1), ("20m", 2)]:  # too small for the records; for the samples
    command = " ".join(map(str, over_ranks(ranks, program, "prepare", "data.toml")))
    inside = f"mount -t tmpfs -o size={size} none small && {{ {command}; code=$?; echo left: $(ls -A small); exit $code; }}"
    said = place.run("unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "bash", "-c", inside, expect=2)
    check("free space there, or set output to another disk" in said, said)
    check("left:\n" in said, f"nothing is left behind:\n{said}")
print("ok full disk", flush=True)

# --- Ended before the end: nothing but the temporary remains, and the next run replaces it

for ending in (signal.SIGKILL, signal.SIGINT):
    recipe("last.jsonl", '[clean]\ndeduplicate = "none"', head='on_error = "skip"')
    (place / "data.h5").unlink(missing_ok=True)
    before = set(place.folder.iterdir())
    process = place.start(program, "prepare", "data.toml")
    for _ in range(2000):
        if (place / "data.h5.partial" / "data.h5").exists() or process.poll() is not None:
            break
        time.sleep(0.005)
    check(process.poll() is None, "it was ended before it was done")
    process.send_signal(ending)
    process.communicate()
    left = {path.name for path in set(place.folder.iterdir()) - before}
    check(left <= {"data.h5.partial"}, f"only the temporary remains, not {left}")
    check(process.returncode != 0, "and the exit code says so")
prepare(say=["wrote"])
check((place / "data.h5").exists() and not (place / "data.h5.partial").exists(), "the next run replaces it")
print("ok ended early", flush=True)
