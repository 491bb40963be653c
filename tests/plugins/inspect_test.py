"""What `attune inspect` says of a data file: its card, and samples as a reader sees them.

    inspect_test.py BUILD_FOLDER
"""
import json
import shutil
import sys
from pathlib import Path

import h5py

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check, make_model

build = Path(sys.argv[1]).resolve()
program = build / "attune"
place = Workplace(build / "tests" / "inspect")
make_model(place / "model")
(place / "sums.jsonl").write_text("".join(json.dumps({"prompt": f"What is {i}?", "response": "One less than " + "€" * (i % 7) + f"{i + 1}."}) + "\n" for i in range(40)))
(place / "sums.toml").write_text("""
name = "sums"
kind = "instruction"
licence = "CC0-1.0"
output = "sums.h5"
tokenizer = "model"
template = "plain"
[[source]]
path = "sums.jsonl"
fields = { prompt = "prompt", response = "response" }
[split]
validation = 0.25
""")
place.run(program, "prepare", "sums.toml")


def bars(said):
    """Of the first histogram: samples in each bin."""
    lines = said[said.index("samples, "):].splitlines()[2:]
    return [int(line.split()[-1]) for line in lines[:next(i for i, line in enumerate(lines) if "sha256" in line)]]


said = place.run(program, "inspect", "sums.h5")
with h5py.File(place / "sums.h5") as file:
    mask = file["train/loss_mask"][()]
check(f"train       30 samples, {100 * mask.mean():.1f} % of tokens trained on" in said, f"the share of trained tokens: {said}")
check(sum(bars(said)) == 30, f"the bars count every sample: {said}")
check("licence CC0-1.0" in said and "sums.jsonl  sha256" in said and "the SHA-256 of every split matches" in said, f"licence, source and checksum: {said}")
check(said.count("\n  row ") == 10 and "«One less than" in said and "What is " in said, f"ten samples, answers marked: {said}")
check("€€" in said, "characters of several tokens are whole")

# Where there is no model: the path to name instead.
snapshot = place / "hub/models--someone--tiny/snapshots/0123abc"
shutil.copytree(place / "model", snapshot)
(place / "hub/models--someone--tiny/refs").mkdir()
(place / "hub/models--someone--tiny/refs/main").write_text("0123abc")
(place / "runs/one").mkdir(parents=True)
(place / "runs/one/run.toml").write_text("")
for named, hint in {"hub": f"the snapshot of a model, such as {snapshot.relative_to(place.folder)}", "hub/models--someone--tiny": f"name {snapshot.relative_to(place.folder)}",
                    "runs/one": "this is a run directory"}.items():
    said = place.run(program, "inspect", named, expect=2)
    check(hint in said, f"{named} is no model: {said}")
    (place / "cached.toml").write_text((place / "sums.toml").read_text().replace('tokenizer = "model"', f'tokenizer = "{named}"'))
    said = place.run(program, "prepare", "cached.toml", expect=2)
    check(hint in said or (named == "runs/one" and "there is no tokenizer in it" in said), f"{named} has no tokenizer: {said}")
check("model: is a folder, but a file is needed" in place.run(program, "check", "model", expect=2), "a folder is no run file")

# Processes side by side share no folder of Open MPI's, which the first to end would remove: there is none.
(place / "no-folder").write_text("")
place.run("env", f"TMPDIR={place / 'no-folder'}", program, "inspect", "model")

(place / "elsewhere").mkdir()
shutil.move(place / "sums.h5", place / "elsewhere/moved.h5")
shutil.move(place / "model", place / "elsewhere/the-model")
said = place.run(program, "inspect", "elsewhere/moved.h5")
check("give it with --tokenizer PATH" in said and said.count("\n  row ") == 10 and "«" not in said, f"without the tokenizer, texts are left out: {said}")
said = place.run(program, "inspect", "elsewhere/moved.h5", "--tokenizer", "elsewhere/the-model")
check("«One less than" in said, f"the tokenizer can be named: {said}")

other = json.loads((place / "elsewhere/the-model/tokenizer.json").read_text())
other["model"]["vocab"]["!!"] = 257
(place / "other.json").write_text(json.dumps(other))
said = place.run(program, "inspect", "elsewhere/moved.h5", "--tokenizer", "other.json", expect=2)
check("is not the tokenizer that elsewhere/moved.h5 was made with" in said, f"another tokenizer is refused: {said}")
