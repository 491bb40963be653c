"""An exported folder is the model that was trained: transformers, its pipelines and PEFT load it without further arguments, with the loss that the run told,
and what was true of the source folder is still there.

    export_test.py BUILD_FOLDER
"""
import json
import sys
from pathlib import Path

import h5py
import torch
from peft import AutoPeftModel, AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import (AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForSequenceClassification,
                          AutoModelForTokenClassification, AutoTokenizer, BertForSequenceClassification, ViTConfig, ViTModel, pipeline)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check, make_classifier, make_gpt2, make_model, make_picture_model, write_labelled, write_pictures

build = Path(sys.argv[1]).resolve()
program = build / "attune"
place = Workplace(build / "tests" / "export")
torch.set_grad_enabled(False)

RUN = """
seed = 3
[train]
steps = 3
global_batch = 8
micro_batch = 4
learning_rate = 1e-2
[checkpoint]
every = 2
[model]
path = "{path}"
plugin = "{plugin}"
{more}
[dataset]
plugin = "{kind}"
path = "{data}.h5"
{strategies}
"""


def train(name, path, plugin, kind, data=None, strategies='[strategy]\nplugin = "full"', more=""):
    """Returns the loss of the tuned model on the validation samples."""
    (place / f"{name}.toml").write_text(f'name = "{name}"\n' + RUN.format(path=path, plugin=plugin, kind=kind, data=data or kind, strategies=strategies, more=more))
    place.run(program, "train", f"{name}.toml")
    return json.loads((place / "runs" / name / "evaluation.json").read_text())["tuned"]["loss"]


def prepared_for(folder, recipe, other):
    """The recipe's data by the tokenizer of a folder, instead of the other's."""
    text = (place / f"{recipe}.toml").read_text().replace(f'"{recipe}.h5"', f'"{folder}-data.h5"').replace(f'"{other}"', f'"{folder}"')
    (place / f"{folder}-data.toml").write_text(text)
    place.run(program, "prepare", f"{folder}-data.toml")
    return f"{folder}-data"


def export(source, to, *more):
    place.run(program, "export", source, "--to", to, *more)
    return place / to


def read(path):
    return json.loads((place / path).read_text())


def change(path, **keys):
    """None takes a key away."""
    path = place / path
    value = (json.loads(path.read_text()) if path.exists() else {}) | keys
    path.write_text(json.dumps({key: one for key, one in value.items() if one is not None}, indent=1))


def samples(data):
    """The validation samples: dicts of column -> tensor."""
    with h5py.File(place / f"{data}.h5") as file:
        group = file["validation"]
        columns = {name: group[name][...] for name in group if not name.endswith(".offsets")}
        for name in [name for name in columns if name + ".offsets" in group]:
            bounds = group[name + ".offsets"][...]
            columns[name] = [columns[name][bounds[i]:bounds[i + 1]] for i in range(len(bounds) - 1)]
        count = len(next(iter(columns.values())))
        return [{name: torch.as_tensor(values[i]) for name, values in columns.items()} for i in range(count)]


def causal_loss(net, data="instruction"):
    total = count = 0
    for sample in samples(data):
        tokens, wanted = sample["tokens"].long(), sample["loss_mask"][1:].bool()
        logits = net(input_ids=tokens[None]).logits[0, -len(tokens):][:-1].float()  # virtual tokens come first
        total += F.cross_entropy(logits[wanted], tokens[1:][wanted], reduction="sum").item()
        count += wanted.sum().item()
    return total / count


def logits_of(net, sample):
    return net(input_ids=sample["tokens"].long()[None]).logits[0]


def class_loss(net, data):
    """By problem_type, as transformers' own loss."""
    losses = []
    for sample in samples(data):
        logits = logits_of(net, sample)
        kind = net.config.problem_type
        if kind == "multi_label_classification":
            losses.append(F.binary_cross_entropy_with_logits(logits, sample["labels"].reshape(-1).float()))
        elif kind == "regression":
            losses.append((logits[0] - sample["value"].reshape(())) ** 2)
        else:
            losses.append(F.cross_entropy(logits, sample["label"].reshape(()).long()))
    return torch.stack(losses).mean().item()


def check_loss(got, told, what):
    check(abs(got - told) < 1e-4, f"{what}: the loss is {got}, and the run told {told}")


def check_kept(source, exported, files):
    for file in files:
        check((place / source / file).read_bytes() == (place / exported / file).read_bytes(), f"{exported}: {file} is that of {source}")


# ---------------------------------------------------------------- bases and data

make_model(place / "model", tie_word_embeddings=True)
make_gpt2(place / "gpt2", place / "model")
make_classifier(place / "classifier")
make_picture_model(place / "net")
write_labelled(place)
write_pictures(place)
FACES = ["glad", "sad", "calm"]
rows = [{"text": f"{FACES[i % 3]} and {FACES[i // 3 % 3]}", "labels": ",".join({FACES[i % 3], FACES[i // 3 % 3]} - {"calm"}), "value": i % 7 / 7, "label": FACES[i % 3]}
        for i in range(40)]
(place / "faces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
for target in ("labels", "value", "label"):
    (place / f"{target}.toml").write_text(f'name = "{target}"\nkind = "classification"\nlicence = "CC0-1.0"\noutput = "{target}.h5"\ntokenizer = "classifier"\ntarget = "{target}"\n'
                                          f'[[source]]\npath = "faces.jsonl"\nfields = {{ text = "text", {target} = "{target}" }}\n'
                                          f'[clean]\ndeduplicate = "none"\n[split]\nvalidation = 0.2\n')
for recipe in ("instruction", "labels", "value", "label", "images"):
    place.run(program, "prepare", f"{recipe}.toml")

# A decoder's folder with all that a folder may hold, and a config.json that is not as we would write it.
TOKENIZER = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "LICENSE"]
change("model/config.json", attention_dropout=0.25, of_its_author={"kept": [1, 2]}, torch_dtype="float32", dtype=None)
change("model/tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", padding_side="left", model_max_length=99, pad_token="<|end|>", truncation_side="left")
change("model/special_tokens_map.json", eos_token={"content": "<|end|>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False})
change("model/added_tokens.json", **{"<|end|>": 256})
change("model/generation_config.json", eos_token_id=[256, 10], do_sample=True, temperature=0.6, top_p=0.9, repetition_penalty=1.1)
(place / "model/chat_template.jinja").write_text("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\r\n{% endfor %}")
(place / "model/LICENSE").write_text("do as you like")
(place / "model/README.md").write_text("---\nlicense: mit\n---\nIt is the best.\n")

# ---------------------------------------------------------------- never trained

export("model", "copy")
check_kept("model", "copy", [*TOKENIZER, "config.json", "generation_config.json"])
check(load_file(place / "copy/model.safetensors").keys() == load_file(place / "model/model.safetensors").keys(), "the same tensors")
change("model/config.json", torch_dtype="bfloat16")
check(json.loads((export("model", "mended") / "config.json").read_text()) == read("model/config.json") | {"torch_dtype": "float32"}, "a type that the weights do not have is put right")

# ---------------------------------------------------------------- trained in full, in another type than the base's config.json names

for dtype in ("float32", "bfloat16"):
    told = train(f"full-{dtype}", "model", "llama", "instruction", more=f'dtype = "{dtype}"')
    folder = f"runs/full-{dtype}/model"
    config, source = read(folder + "/config.json"), read("model/config.json")
    check(config == source | {"torch_dtype": dtype}, f"config.json differs in the type alone: {config}")
    check({str(tensor.dtype) for tensor in load_file(place / folder / "model.safetensors").values()} == {f"torch.{dtype}"}, "the weights are of that type")
    check_kept("model", folder, [*TOKENIZER, "generation_config.json"])
    net, tokenizer = AutoModelForCausalLM.from_pretrained(place / folder), AutoTokenizer.from_pretrained(place / folder)
    check(str(net.dtype) == f"torch.{dtype}" and net.config.tie_word_embeddings, f"loaded as {net.dtype}")
    if dtype == "float32":
        check_loss(causal_loss(net), told, "full")
    check((tokenizer.padding_side, tokenizer.model_max_length, tokenizer.pad_token, tokenizer.eos_token) == ("left", 99, "<|end|>", "<|end|>"), "the tokenizer's settings")
    check(tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False).startswith("user: a"), "the chat template")
    check((net.generation_config.eos_token_id, net.generation_config.temperature) == ([256, 10], 0.6), "the generation defaults")

# In several files.
for source, to in (("model", "divided"), ("runs/full-float32", "divided-run")):
    divided = export(source, to, "--max-shard-size", "20KB")
    files = sorted(divided.glob("model-*.safetensors"))
    check(len(files) > 2 and files[-1].name.endswith(f"of-{len(files):05}.safetensors") and not (divided / "model.safetensors").exists(), f"{files}")
    whole = load_file(place / (source if source == "model" else "runs/full-float32/model") / "model.safetensors")
    parts = [load_file(file) for file in files]
    check(all(len(part) == 1 or sum(tensor.nbytes for tensor in part.values()) <= 20000 for part in parts), "none is larger, but for a single tensor")
    check(whole.keys() == {name for part in parts for name in part} and all(torch.equal(whole[name], tensor) for part in parts for name, tensor in part.items()), "the same")
check_loss(causal_loss(AutoModelForCausalLM.from_pretrained(place / "divided-run")), json.loads((place / "runs/full-float32/evaluation.json").read_text())["tuned"]["loss"], "in several files")
for size in ("20", "GB", "-1GB", "0GB", "5 GB x", "0x10GB", " 5GB", "0.0001KB", "1e9GB", ""):
    said = place.run(program, "export", "model", "--to", "none", "--max-shard-size", size, expect=2)
    check("--max-shard-size" in said and not (place / "none").exists(), f"{size!r}: {said}")

# A checkpoint exported, an export trained on and exported again.
early = export("runs/full-float32", "early", "--checkpoint", "2")
check_kept("model", "early", [*TOKENIZER, "generation_config.json"])
check(not torch.equal(load_file(early / "model.safetensors")["model.norm.weight"], load_file(place / "runs/full-float32/model/model.safetensors")["model.norm.weight"]),
      "a checkpoint's weights are its own")
told = train("again", "early", "llama", "instruction", more='allowed_licences = ["mit"]')
check_loss(causal_loss(AutoModelForCausalLM.from_pretrained(place / "runs/again/model")), told, "an export trained on")
check_kept("model", "runs/again/model", [*TOKENIZER, "generation_config.json"])
place.run(program, "generate", "runs/again/model", "--prompt", "a", "--raw", "--max-tokens", 2)

# ---------------------------------------------------------------- adapters

change("model/config.json", torch_dtype=None)
SAVED = {"model": ("llama", "embed_tokens", "model.embed_tokens", "lm_head"), "gpt2": ("gpt2", "wte", "transformer.wte", "lm_head")}
for base, (plugin, embedding, *tied) in SAVED.items():
    for save in ([], [embedding], [embedding, "lm_head"], ["lm_head"]):
        if base == "gpt2" and len(save) != 1:
            continue
        name = "-".join(["lora", base, *save])
        told = train(name, base, plugin, "instruction", strategies=f'[strategy]\nplugin = "lora"\nrank = 4\nsave = {json.dumps(save)}')
        adapter = place / "runs" / name / "adapter"
        config = json.loads((adapter / "adapter_config.json").read_text())
        check((config["peft_type"], config["task_type"], config["base_model_name_or_path"]) == ("LORA", "CAUSAL_LM", str(place / base)), f"{name}: {config}")
        check(sorted(config["modules_to_save"] or []) == (sorted(tied) if save else []), f"{name}: tied modules are saved both: {config['modules_to_save']}")
        check_loss(causal_loss(AutoPeftModelForCausalLM.from_pretrained(adapter)), told, f"{name} in PEFT")
        merged = export(f"runs/{name}", f"merged-{name}", "--merge")
        net = AutoModelForCausalLM.from_pretrained(merged)
        check(net.config.tie_word_embeddings, f"{name}: the merged model is tied as its base")
        check_loss(causal_loss(net), told, f"{name} merged")
check_kept("model", "merged-lora-model", [*TOKENIZER, "generation_config.json", "config.json"])

# Training goes on from such an adapter; one whose tied tensors differ is refused.
(place / "further.toml").write_text((place / "lora-model-embed_tokens.toml").read_text().replace("rank = 4", 'rank = 4\nadapter = "start"'))
adapter = place / "runs/lora-model-embed_tokens/adapter"
(place / "start").mkdir()
for file in adapter.iterdir():
    (place / "start" / file.name).write_bytes(file.read_bytes())
place.run(program, "train", "further.toml", "name=further")
tensors = load_file(adapter / "adapter_model.safetensors")
tensors["base_model.model.lm_head.weight"] = tensors["base_model.model.lm_head.weight"] + 1
save_file(tensors, place / "start/adapter_model.safetensors")
said = place.run(program, "train", "further.toml", "name=refused", expect=2)
check("ties them to one tensor" in said, f"tied tensors that differ: {said}")

# A base in the download cache of Hugging Face has a name.
cached = place / "cache/models--someone--tiny/snapshots/0123abc"
cached.parent.mkdir(parents=True)
cached.symlink_to(place / "model")
train("cached", "cache/models--someone--tiny/snapshots/0123abc", "llama", "instruction", strategies='[strategy]\nplugin = "lora"\nrank = 2')
config = read("runs/cached/adapter/adapter_config.json")
check((config["base_model_name_or_path"], config["revision"]) == ("someone/tiny", "0123abc"), f"{config}")

# The other adapters that PEFT has.
for strategy, options in {"ia3": "", "vera": "rank = 8", "prefix": "tokens = 4", "prompt": "tokens = 4"}.items():
    told = train(strategy, "model", "llama", "instruction", strategies=f'[strategy]\nplugin = "{strategy}"\n{options}')
    check_loss(causal_loss(AutoPeftModelForCausalLM.from_pretrained(place / f"runs/{strategy}/adapter").eval()), told, f"{strategy} in PEFT")

# Members of Llama's family.
for family in ("mistral", "qwen2", "qwen3", "gemma2"):
    torch.manual_seed(0)
    sizes = dict(vocab_size=257, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
                 max_position_embeddings=128, bos_token_id=256, eos_token_id=256, pad_token_id=None)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).save_pretrained(place / family)
    (place / family / "tokenizer.json").write_bytes((place / "model/tokenizer.json").read_bytes())
    if family == "gemma2":  # whose own class has other tokens than this tokenizer
        (place / family / "tokenizer_config.json").write_bytes((place / "model/tokenizer_config.json").read_bytes())
    data = prepared_for(family, "instruction", "model")
    told = train(f"full-{family}", family, family, "instruction", data)
    check_kept(family, f"runs/full-{family}/model", ["config.json", "generation_config.json"])
    check_loss(causal_loss(AutoModelForCausalLM.from_pretrained(place / f"runs/full-{family}/model"), data), told, family)
    source, made = (AutoTokenizer.from_pretrained(folder) for folder in (place / family, place / f"runs/full-{family}/model"))
    check(made.eos_token == "<|end|>", f"{family}: a tokenizer_config.json is made where there was none")
    for text in ("The end. 12345 'tis", " two  blanks\nand a line<|end|>", "é e\u0301"):
        check(made(text).input_ids == source(text).input_ids, f"{family}: {text!r} is {made(text).input_ids}, in the source {source(text).input_ids}")

# ---------------------------------------------------------------- tied by config.json, and not by the weights

tensors = load_file(place / "model/model.safetensors")
torch.manual_seed(5)
(place / "apart").mkdir()
for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
    (place / "apart" / file).write_bytes((place / "model" / file).read_bytes())
save_file(tensors | {"lm_head.weight": torch.randn_like(tensors["model.embed_tokens.weight"]) / 8}, place / "apart/model.safetensors", {"format": "pt"})
told = train("apart", "apart", "llama", "instruction")
check(read("runs/apart/model/config.json")["tie_word_embeddings"] is False, "config.json says that the head is its own")
check_loss(causal_loss(AutoModelForCausalLM.from_pretrained(place / "runs/apart/model")), told, "a head of its own")
base = json.loads((place / "runs/apart/evaluation.json").read_text())["base"]["loss"]
check_loss(causal_loss(AutoModelForCausalLM.from_pretrained(place / "apart")), base, "its base")

# ---------------------------------------------------------------- classifiers

change("classifier/config.json", pad_token_id=0, classifier_dropout=0.3)
stale = BertForSequenceClassification(AutoConfig.from_pretrained(place / "classifier", num_labels=2, problem_type="single_label_classification"))
stale.save_pretrained(place / "stale")
(place / "stale/tokenizer.json").write_bytes((place / "classifier/tokenizer.json").read_bytes())
change("stale/config.json", num_labels=2, id2label={"0": "old", "1": "older"}, label2id={"old": 0, "older": 1})
WANTED = {"labels": ("multi_label_classification", ["glad", "sad"], torch.sigmoid), "value": ("regression", ["value"], lambda x: x),
          "label": ("single_label_classification", ["calm", "glad", "sad"], lambda x: x.softmax(-1))}
for base in ("classifier", "stale"):
    for data, (problem, names, function) in WANTED.items():
        told = train(f"{data}-{base}", base, "bert", "classification", data, more='pooling = "cls"')
        folder = place / "runs" / f"{data}-{base}" / "model"
        config = json.loads((folder / "config.json").read_text())
        check(config["problem_type"] == problem and "num_labels" not in config, f"{data}, {base}: {config}")
        net, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        check(list(net.config.id2label.values()) == names and net.config.label2id == {name: i for i, name in enumerate(names)}, f"{data}, {base}: {net.config.id2label}")
        check(net.config.classifier_dropout == (0.3 if base == "classifier" else net.config.classifier_dropout), "other keys stay")
        check_loss(class_loss(net, data), told, f"{data}, {base}")
        check((tokenizer.pad_token, tokenizer.cls_token, tokenizer.model_max_length) == ("[PAD]", "[CLS]", 96), f"{tokenizer}")
        logits = net(**tokenizer("glad and sad", return_tensors="pt")).logits[0]
        said = {one["label"]: one["score"] for one in pipeline("text-classification", model=str(folder), top_k=None)(["glad and sad", "calm"])[0]}
        check(all(abs(said[name] - right) < 1e-4 for name, right in zip(names, function(logits).tolist())), f"{data}, {base}: the pipeline says {said}")

said = place.run(program, "generate", "runs/label-classifier", "--prompt", "glad", expect=2)
check("runs/label-classifier: its model does not generate text" in said and said.count("\n") == 1, f"a classifier is no model to ask: {said}")

# A classifier that transformers' class does not compute.
train("of-means", "classifier", "bert", "classification", "label", more='pooling = "mean"')
said = place.run(program, "export", "runs/of-means", "--to", "exported-means")
check("warning: this classifier pools the mean of the tokens" in said and 'model.pooling = "cls"' in said, f"the export warns: {said}")
check(read("exported-means/config.json")["classifier_pooling"] == "mean", "the config.json says what is pooled")
check(not any("classifier_pooling" in read(f"runs/label-{base}/model/config.json") for base in ("classifier", "stale")), "the first token is the default")

# Other encoders, and classes of tokens.
for family, names in {"roberta": {}, "distilbert": dict(dim=32, hidden_dim=64, n_layers=2, n_heads=4)}.items():
    torch.manual_seed(0)
    sizes = dict(vocab_size=62, max_position_embeddings=96, pad_token_id=0)
    names = names or dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    AutoModel.from_config(AutoConfig.for_model(family, **sizes, **names)).save_pretrained(place / family)
    (place / family / "tokenizer.json").write_bytes((place / "classifier/tokenizer.json").read_bytes())
    if family == "roberta":  # whose own class takes no WordPiece; unit.weights_export has its longest text
        (place / family / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 95}))
    data = prepared_for(family, "label", "classifier")
    told = train(f"full-{family}", family, family, "classification", data, more='pooling = "cls"')
    folder = place / f"runs/full-{family}/model"
    check_loss(class_loss(AutoModelForSequenceClassification.from_pretrained(folder).eval(), data), told, family)
    check(AutoTokenizer.from_pretrained(folder).model_max_length == (95 if family == "roberta" else 96), f"{family}: the longest text")

(place / "tags.jsonl").write_text("".join(json.dumps({"words": row["text"].split(), "tags": ["O" if word == "and" else word for word in row["text"].split()]}) + "\n" for row in rows))
(place / "tags.toml").write_text('name = "tags"\nkind = "token_classification"\nlicence = "CC0-1.0"\noutput = "tags.h5"\ntokenizer = "classifier"\n[[source]]\npath = "tags.jsonl"\n'
                                 '[clean]\ndeduplicate = "none"\n[split]\nvalidation = 0.2\n')
place.run(program, "prepare", "tags.toml")
told = train("tags-run", "stale", "bert", "token_classification", "tags", more='head = "token_classification"')
net = AutoModelForTokenClassification.from_pretrained(place / "runs/tags-run/model").eval()
check(sorted(net.config.id2label.values()) == ["O", "calm", "glad", "sad"] and net.config.problem_type is None, f"tags: {net.config}")
kept = [(logits_of(net, sample), sample["tags"].long()) for sample in samples("tags")]
check_loss(F.cross_entropy(torch.cat([logits for logits, _ in kept]), torch.cat([tags for _, tags in kept])).item(), told, "tags")

# An adapter of a base whose head has as many outputs, loaded by PEFT alone.
told = train("lora-value", "stale", "bert", "classification", "labels", '[strategy]\nplugin = "lora"\nrank = 2', 'pooling = "cls"')
net = AutoPeftModelForSequenceClassification.from_pretrained(place / "runs/lora-value/adapter")
net.config.problem_type = "multi_label_classification"
check_loss(class_loss(net, "labels"), told, "a classifier's adapter in PEFT")
merged = AutoModelForSequenceClassification.from_pretrained(export("runs/lora-value", "merged-value", "--merge"))
check_loss(class_loss(merged, "labels"), told, "a classifier's adapter merged")

# ---------------------------------------------------------------- pictures

torch.manual_seed(0)
ViTModel(ViTConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=8)).save_pretrained(place / "vit")
for base, plugin, mean, deviation in (("net", "efficientnet", 0.5, 0.25), ("vit", "vit", 0.5, 0.5)):
    told = train(f"full-{base}", base, plugin, "images")
    lora = train(f"lora-{base}", base, plugin, "images", strategies=f'[strategy]\nplugin = "lora"\nrank = 2\ntargets = ["{"project_conv" if base == "net" else "q_proj"}"]')
    processor = read(f"runs/full-{base}/model/preprocessor_config.json")
    check(processor["image_mean"] == [mean] * 3 and processor["image_std"] == [deviation] * 3, f"{base}: {processor}")

    def picture_loss(net):
        losses = []
        for sample in samples("images"):
            pixels = ((sample["pixels"].float() / 255 - mean) / deviation).reshape(1, -1, 16, 16).expand(1, 3, 16, 16)
            losses.append(F.cross_entropy(net(pixel_values=pixels).logits, sample["label"].reshape(1).long()))
        return torch.stack(losses).mean().item()

    net = AutoModelForImageClassification.from_pretrained(place / f"runs/full-{base}/model").eval()
    check(net.config.problem_type == "single_label_classification" and len(net.config.id2label) == 2, f"{base}: {net.config}")
    check_loss(picture_loss(net), told, base)
    check_loss(picture_loss(AutoPeftModel.from_pretrained(place / f"runs/lora-{base}/adapter").eval()), lora, f"{base}: the adapter in PEFT")
check_kept("net", "runs/full-net/model", ["preprocessor_config.json"])
made = read("runs/full-vit/model/preprocessor_config.json")
check(made["image_processor_type"] == "ViTImageProcessor" and made["size"] == {"height": 16, "width": 16}, f"made where there was none: {made}")
