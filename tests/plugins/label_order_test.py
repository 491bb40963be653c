"""A base that numbers the data's labels in another order keeps its meaning: by name, a model that was hardly trained says what its base says.

    label_order_test.py BUILD_FOLDER
"""
import json
import shutil
import sys
from pathlib import Path

import torch
from peft import AutoPeftModelForSequenceClassification, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check, make_classifier

build = Path(sys.argv[1]).resolve()
program = build / "attune"
place = Workplace(build / "tests" / "label_order")
NAMES = ["sad", "Glad", "calm"]  # the data's are in alphabetical order: calm, glad, sad
TEXTS = ["abc", "so glad", "a cold day", "zzz"]

make_classifier(place / "letters")
sizes = json.loads((place / "letters/config.json").read_text())
torch.manual_seed(4)
net = BertForSequenceClassification(BertConfig(**{key: sizes[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")},
                                               id2label=dict(enumerate(NAMES)), label2id={name: i for i, name in enumerate(NAMES)}))
with torch.no_grad():
    for parameter in net.parameters():
        parameter.add_(torch.randn_like(parameter) / 5)
net.save_pretrained(place / "base")
shutil.copy(place / "letters/tokenizer.json", place / "base/tokenizer.json")
(place / "base/tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))

(place / "rows.jsonl").write_text("".join(json.dumps({"text": TEXTS[i % 4], "label": ("calm", "glad", "sad")[i % 3]}) + "\n" for i in range(36)))
(place / "rows.toml").write_text('name = "rows"\nkind = "classification"\nlicence = "CC0-1.0"\noutput = "rows.h5"\ntokenizer = "base"\n'
                                 '[[source]]\npath = "rows.jsonl"\n[clean]\ndeduplicate = "none"\n[split]\nvalidation = 0.2\n')
place.run(program, "prepare", "rows.toml")


def train(name, strategy):
    (place / f"{name}.toml").write_text(f'name = "{name}"\n[model]\nplugin = "bert"\npath = "base"\npooling = "cls"\n[dataset]\nplugin = "classification"\npath = "rows.h5"\n'
                                        f"[strategy]\n{strategy}\n[train]\nsteps = 1\nglobal_batch = 4\nmicro_batch = 4\nlearning_rate = 1e-12\n")
    place.run(program, "train", f"{name}.toml")
    return json.loads((place / "runs" / name / "evaluation.json").read_text())


@torch.no_grad()
def says(model):
    """The probability of each label, by its name in lower case."""
    tokenizer = AutoTokenizer.from_pretrained(place / "base")
    rows = [model.eval()(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1) for text in TEXTS]
    return {model.config.id2label[i].lower(): torch.stack(rows)[:, i] for i in range(3)}


def check_same(model, other, what):
    got, wanted = says(model), says(other)
    check(all(torch.allclose(got[name], wanted[name], atol=1e-5) for name in wanted), f"{what}: {got}, and by the base {wanted}")


base = AutoModelForSequenceClassification.from_pretrained(place / "base")
full = train("full", 'plugin = "full"')
exported = AutoModelForSequenceClassification.from_pretrained(place / "runs/full/model")
check(list(exported.config.id2label.values()) == ["calm", "glad", "sad"], f"{exported.config.id2label}")
check_same(exported, base, "trained in full")

train("adapter", 'plugin = "lora"\nrank = 2')
check_same(AutoPeftModelForSequenceClassification.from_pretrained(place / "runs/adapter/adapter"), base, "an adapter in PEFT")
place.run(program, "export", "runs/adapter", "--to", "merged", "--merge")
check_same(AutoModelForSequenceClassification.from_pretrained(place / "merged"), base, "merged")

# An adapter that PEFT wrote has its head in the base's order.
torch.manual_seed(5)
theirs = get_peft_model(AutoModelForSequenceClassification.from_pretrained(place / "base"), LoraConfig(task_type="SEQ_CLS", r=2, lora_alpha=4, target_modules=["query"]))
with torch.no_grad():
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) / 3)
theirs.save_pretrained(place / "theirs")
train("further", 'plugin = "lora"\nrank = 2\nalpha = 4\ntargets = ["query"]\nadapter = "theirs"')
loaded = PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(place / "base"), place / "theirs")
check_same(AutoPeftModelForSequenceClassification.from_pretrained(place / "runs/further/adapter"), loaded, "an adapter trained on")
