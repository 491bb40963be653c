"""Every kind of target trains: several labels and values on MiniLM, windows of text on a tiny Llama.

    targets_test.py BUILD_FOLDER
"""
import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import RUN, Workplace, check, make_model

build = Path(sys.argv[1]).resolve()
source = Path(__file__).resolve().parent.parent.parent
program = build / "attune"
place = Workplace(build / "tests" / "targets")
random.seed(0)


def tune(name, recipe, run):
    """Base and tuned metrics."""
    (place / f"{name}.toml").write_text(f'name = "{name}"\nlicence = "CC0-1.0"\noutput = "{name}.h5"\n{recipe}\n[split]\nvalidation = 0.25\n')
    (place / f"{name}-run.toml").write_text(run)
    place.run(program, "prepare", f"{name}.toml")
    place.run(program, "train", f"{name}-run.toml", timeout=300)
    result = json.loads((place / f"runs/{name}/evaluation.json").read_text())
    print(name, result, flush=True)
    check(result["tuned"]["loss"] < result["base"]["loss"], f"{name}: the loss falls")
    return result


def on_minilm(name):
    return f'''name = "{name}"
seed = 3
[model]
plugin = "bert"
path = "{source}/models/minilm"
[dataset]
plugin = "classification"
path = "{name}.h5"
[strategy]
plugin = "full"
[train]
epochs = 6
global_batch = 12
micro_batch = 6
learning_rate = 3e-4
'''


traits = {"sea": ["wave", "ship", "harbour"], "wood": ["tree", "moss", "owl"], "town": ["street", "tram", "market"]}
rows = []
for i in range(96):
    chosen = [trait for trait in traits if random.random() < 0.4]
    words = [random.choice(traits[trait]) for trait in chosen] + random.sample(["a", "the", "slow", "early", "quiet"], 3)
    random.shuffle(words)
    rows.append({"text": " ".join(words) + f" {i}", "labels": chosen, "value": len(chosen) - 1.0})
(place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
(place / "table.csv").write_text("text,labels,value\n" + "".join(f'{row["text"]},{";".join(row["labels"])},{row["value"]}\n' for row in rows))
tokenizer = f'kind = "classification"\ntokenizer = "{source}/models/minilm"'

labels = tune("labels", f'{tokenizer}\ntarget = "labels"\nseparator = ";"\n[[source]]\npath = "table.csv"\nfields = {{ text = "text", labels = "labels" }}', on_minilm("labels"))
check(labels["tuned"]["f1"] > max(0.7, labels["base"]["f1"]) and "pearson" not in labels["tuned"], "labels: F1 rises")

value = tune("value", f'{tokenizer}\ntarget = "value"\n[[source]]\npath = "rows.jsonl"\nfields = {{ text = "text", value = "value" }}', on_minilm("value"))
check(value["tuned"]["pearson"] > max(0.7, value["base"]["pearson"]) and "accuracy" not in value["tuned"], "value: the correlation rises")

make_model(place / "model")
text = "kind = \"corpus\"\ntokenizer = \"model\"\nwindow = 64\noverlap = 16\n[[source]]\npath = \"rows.jsonl\"\nfields = { text = \"text\" }"
windows = tune("windows", text, RUN.replace('name = "run"', 'name = "windows"').replace('"instruction"', '"corpus"').replace("sums.h5", "windows.h5"))
check(windows["tuned"]["perplexity"] < windows["base"]["perplexity"], "windows: the perplexity falls")
