"""Every strategy, and the kinds of model it serves: what tests try as a whole."""
import json

from tiny import make_classifier, make_gpt2, make_model, make_picture_model, write_labelled, write_pictures

RUN = """
seed = 3
[model]
plugin = "{plugin}"
path = "{path}"
{model_options}
[dataset]
plugin = "{kind}"
path = "{kind}.h5"
{strategies}
[train]
steps = 4
global_batch = 8
micro_batch = 2
learning_rate = 1e-3
[evaluate]
micro_batch = 4
[checkpoint]
every = 2
keep = 0
"""

FULL, LORA = {"plugin": "full"}, {"plugin": "lora", "rank": 4}
# Of each family: its folder, and the kind of data.
FAMILIES = {"llama": ("model", "instruction"), "bert": ("classifier", "classification"), "gpt2": ("gpt2", "instruction"), "efficientnet": ("net", "images")}
#  strategy -> (its list, kinds of model it serves)
BOTH, DECODER, CLASSIFIER = ("llama", "bert"), ("llama",), ("bert",)
STRATEGIES = {
    "full": ([FULL], BOTH),
    "freeze": ([{"plugin": "freeze", "last_blocks": 1}], BOTH),
    "linear_probe": ([{"plugin": "linear_probe"}], CLASSIFIER),
    "bitfit": ([{"plugin": "bitfit", "norms": True}], BOTH),
    "gradual_unfreezing": ([FULL, {"plugin": "gradual_unfreezing", "every_steps": 2}], BOTH),
    "llrd": ([FULL, {"plugin": "llrd", "decay": 0.5}], BOTH),
    "lora": ([LORA], BOTH),
    "lora (DoRA)": ([LORA | {"dora": True}], BOTH),
    "lora (PiSSA)": ([LORA | {"init": "pissa"}], BOTH),
    "ia3": ([{"plugin": "ia3"}], BOTH),
    "vera": ([{"plugin": "vera", "rank": 8}], BOTH),
    "adapter": ([{"plugin": "adapter", "width": 4}], BOTH),
    "prefix": ([{"plugin": "prefix", "tokens": 4}], BOTH),
    "prefix (projection)": ([{"plugin": "prefix", "tokens": 4, "projection": 16}], BOTH),
    "prompt": ([{"plugin": "prompt", "tokens": 4, "text": "Answer:"}], DECODER),
    "quantize (QLoRA)": ([LORA, {"plugin": "quantize", "type": "int8"}], BOTH),
    "label_smoothing": ([LORA, {"plugin": "label_smoothing"}], BOTH),
    "class_weights": ([FULL, {"plugin": "class_weights"}], CLASSIFIER),
    "focal": ([LORA, {"plugin": "focal"}], BOTH),
    "dpo": ([LORA, {"plugin": "dpo"}], DECODER),
    "dpo (full)": ([FULL, {"plugin": "dpo"}], DECODER),
    "orpo": ([LORA, {"plugin": "orpo"}], DECODER),
    "kto": ([LORA, {"plugin": "kto"}], DECODER),
    "distill": ([FULL, {"plugin": "distill", "teacher": "{path}"}], BOTH),
    "distill (stored)": ([FULL, {"plugin": "distill", "teacher": "{path}", "stored": "{path}-logits.safetensors", "top": 16}], BOTH),
    "ewc": ([FULL, {"plugin": "ewc", "data": "{kind}.h5"}], BOTH),
    "l2sp": ([FULL, {"plugin": "l2sp"}], BOTH),
    "neftune": ([LORA, {"plugin": "neftune"}], BOTH),
}
# What the other two families are tried with: strategies that depend on how a family's layers are named, made and stored.
MORE = {
    "gpt2": ["full", "lora", "lora (DoRA)", "ia3", "vera", "adapter", "prefix", "quantize (QLoRA)", "dpo"],
    "efficientnet": ["full", "freeze", "linear_probe", "bitfit", "llrd", "lora", "distill"],
}
POINTWISE = ["expand_conv", "project_conv", "top_conv"]  # a network of convolutions has no linear layer but its head
PREFERENCES = {"dpo", "dpo (full)", "orpo", "kto"}
NOT_SERVED = {"linear_probe": "its head is its embedding", "prompt": "is for decoders", "class_weights": "is for classifiers", "dpo": "compares texts", "dpo (full)": "compares texts", "orpo": "compares texts", "kto": "compares texts"}


def toml(strategies, names):
    lines = []
    for strategy in strategies:
        lines.append("[[strategy]]")
        lines += [f"{key} = {json.dumps(value.format(**names) if isinstance(value, str) else value)}" for key, value in strategy.items()]
    return "\n".join(lines)


def combinations():
    """Strategy and family, for all that are tried."""
    return [(strategy, family) for strategy in STRATEGIES for family in [*BOTH, *(family for family, tried in MORE.items() if strategy in tried)]]


def is_served(strategy, family):
    return family not in BOTH or family in STRATEGIES[strategy][1]


def name_of(strategy, family):
    return f"{strategy.replace(' ', '-').replace('(', '').replace(')', '').lower()}-{family}"


def kind_of(strategy, family):
    """Of the data that they are trained on."""
    return "preference" if strategy in PREFERENCES else FAMILIES[family][1]


def write_run(place, strategy, family):
    """NAME.toml of such a run; returns its name."""
    strategies = STRATEGIES[strategy][0]
    if family == "efficientnet":
        strategies = [each | {"targets": POINTWISE} if each["plugin"] == "lora" else each for each in strategies]
    name = name_of(strategy, family)
    names = {"kind": kind_of(strategy, family), "path": FAMILIES[family][0], "plugin": family, "model_options": 'pooling = "cls"' if family == "bert" else ""}
    (place / f"{name}.toml").write_text(f'name = "{name}"\n' + RUN.format(strategies=toml(strategies, names), **names))
    return name


def make_inputs(place, program):
    """The models and data of all of them."""
    make_model(place / "model")
    make_classifier(place / "classifier")
    make_gpt2(place / "gpt2", place / "model")
    make_picture_model(place / "net")
    write_labelled(place)
    write_pictures(place)
    for kind in ("instruction", "classification", "preference", "images"):
        place.run(program, "prepare", f"{kind}.toml")
