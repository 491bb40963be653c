"""What `attune inspect` says of a model; models that are refused; pictures and tags from raw files to a model that transformers reads.

    models_test.py BUILD_FOLDER
"""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import RUN, Workplace, check, make_model, make_picture_model, make_recipe

build = Path(sys.argv[1]).resolve()
source = Path(__file__).resolve().parent.parent.parent
program = build / "attune"
place = Workplace(build / "tests" / "models")
make_model(place / "model")
make_recipe(place)
place.run(program, "prepare", "sums.toml")
(place / "run.toml").write_text(RUN)

# What a model is, and what training it takes.
said = place.run(program, "inspect", "model", "--micro-batch", 2, "--length", 64)
check("supported by the plugin 'llama'" in said and "2 samples of 64 tokens" in said, f"a known architecture is supported: {said}")
check("licence         not stated" in said, f"a model without a licence says so: {said}")
rows = {line.split()[0]: line.split() for line in said.splitlines() if line.startswith("  ")}
parameters = sum(tensor.numel() for tensor in load_file(place / "model/model.safetensors").values())
check(int(rows["full"][1]) == parameters, f"full fine-tuning trains all of {parameters}: {rows['full']}")
check(0 < int(rows["lora"][1]) < parameters / 2, f"lora trains few: {rows['lora']}")

# Licences.
said = place.run(program, "train", "run.toml", 'model.allowed_licences=["apache-2.0"]', expect=2)
check("states no licence" in said, f"a licence that is not stated is refused: {said}")
(place / "model/README.md").write_text("---\nlicense: other\nlicense_name: \"CC-BY-NC-4.0\"\n---\n")
said = place.run(program, "train", "run.toml", 'model.allowed_licences=["apache-2.0", "mit"]', expect=2)
check("'CC-BY-NC-4.0', which is not among model.allowed_licences (apache-2.0, mit)" in said, f"another licence is refused: {said}")
check(not (place / "runs").exists(), "what is refused leaves nothing behind")
said = place.run(program, "inspect", "model")
check("CC-BY-NC-4.0" in said and "no commercial use" in said, f"a licence comes with its terms: {said}")
place.run(program, "train", "run.toml", 'model.allowed_licences=["cc-by-nc-4.0"]', "train.steps=1")

# An unknown architecture.
config = json.loads((place / "model/config.json").read_text())
(place / "model/config.json").write_text(json.dumps({**config, "model_type": "t5"}))
known = "bert, distilbert, efficientnet, gemma2, gpt2, llama, mistral, qwen2, qwen3, roberta, vit"
for command in (("generate", "model", "--prompt", "a"), ("train", "run.toml", "name=unknown")):
    said = place.run(program, *command, expect=2)
    check("'t5'" in said and known in said, f"{command[0]} lists the known architectures: {said}")
said = place.run(program, "inspect", "model")
check("not supported" in said and known in said, f"inspect lists the known architectures: {said}")

# Tags, from a list of words to a model that transformers reads.
(place / "models").symlink_to(source / "models")
place.run(program, "prepare", source / "plugins/datasets/token_classification/example.toml", f"output={place / 'people.h5'}")
tiny = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
AutoModel.from_config(AutoConfig.for_model("bert", vocab_size=30522, max_position_embeddings=64, **tiny)).save_pretrained(place / "encoder")
(place / "tags.toml").write_text("""
name = "tags"
[model]
plugin = "bert"
path = "encoder"
head = "token_classification"
[dataset]
plugin = "token_classification"
path = "people.h5"
[strategy]
plugin = "full"
[train]
steps = 60
global_batch = 4
micro_batch = 2
learning_rate = 1e-2
""")
place.run(program, "train", "tags.toml")
result = json.loads((place / "runs/tags/evaluation.json").read_text())
check(result["tuned"]["loss"] < 0.7 * result["base"]["loss"], f"a model learns tags: {result}")
tagger = AutoModelForTokenClassification.from_pretrained(place / "runs/tags/model")
check(sorted(tagger.config.id2label.values()) == ["B-LOC", "B-PER", "I-PER", "O"], f"the names of the tags go with it: {tagger.config.id2label}")

# Pictures: what training changes, and what it leaves.
place.run(program, "prepare", source / "plugins/datasets/images/example.toml", f"output={place / 'bars.h5'}")
make_picture_model(place / "net")
(place / "pictures.toml").write_text("""
name = "pictures"
[model]
plugin = "efficientnet"
path = "net"
[dataset]
plugin = "images"
path = "bars.h5"
[strategy]
plugin = "full"
[train]
steps = 20
global_batch = 8
micro_batch = 4
learning_rate = 1e-2
""")
place.run(program, "train", "pictures.toml")
losses = [event["loss"] for event in place.events("pictures", "step_end")]
check(sum(losses[-5:]) < 0.7 * sum(losses[:5]), f"a model learns pictures: {losses}")
before, after = load_file(place / "net/model.safetensors"), load_file(place / "runs/pictures/model/model.safetensors")
name = "encoder.top_bn.running_var"
check(torch.equal(before[name], after["efficientnet." + name]), "statistics stay as they came")
check(json.loads((place / "runs/pictures/model/config.json").read_text())["image_mean"] == [0.5] * 3, "the scaling of pictures goes with the model")
