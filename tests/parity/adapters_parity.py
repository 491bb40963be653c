"""Adapters that PEFT writes have PEFT's loss in Attune, or are refused by a sentence that names the key of adapter_config.json.

Usage: adapters_parity.py PROGRAM FOLDER [SECONDS]      without SECONDS: a fixed choice; with them: random configurations for so long

A configuration is made in PEFT, its tensors are moved away from their start, and it is saved. The reference is the loss of the saved adapter, loaded
again by PeftModel.from_pretrained. Which modules PEFT adapted, and with which rank and alpha, is read from PEFT's model: Attune's own reading of the
patterns is not asked.
"""
import json
import random
import sys
import time
import warnings
from pathlib import Path

import h5py
import torch
from peft import IA3Config, LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, VeraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check, make_classifier, make_gpt2, make_model, make_recipe, write_labelled

warnings.filterwarnings("ignore")
logging.disable_progress_bar()
TOLERANCE = 2e-5  # of the loss
PLUGINS = {"llama": "llama", "untied": "llama", "gpt2": "gpt2", "bert": "bert"}


class Case:
    def __init__(self, program, folder):
        self.program, self.place = program, Workplace(folder)
        make_model(self.place / "llama", tie_word_embeddings=True)
        make_model(self.place / "untied", attention_bias=True)
        make_gpt2(self.place / "gpt2", self.place / "llama")
        make_classifier(self.place / "classifier")
        vocabulary = json.loads((self.place / "classifier/config.json").read_text())
        sizes = {key: vocabulary[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")}
        torch.manual_seed(0)
        BertForSequenceClassification(BertConfig(**sizes, id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})).save_pretrained(self.place / "bert")
        (self.place / "bert/tokenizer.json").write_text((self.place / "classifier/tokenizer.json").read_text())
        make_recipe(self.place)
        recipe = (self.place / "sums.toml").read_text()
        (self.place / "sums.toml").write_text(recipe.replace('tokenizer = "model"', 'tokenizer = "llama"'))
        self.place.run(program, "prepare", "sums.toml")
        write_labelled(self.place)
        self.place.run(program, "prepare", "classification.toml")

    def base(self, name):
        torch.manual_seed(0)
        kind = AutoModelForSequenceClassification if name == "bert" else AutoModelForCausalLM
        return kind.from_pretrained(self.place / name, dtype=torch.float32).eval()

    def column(self, data, name):
        with h5py.File(self.place / f"{data}.h5") as file:
            split = file["validation"]
            values = torch.tensor(split[name][:].astype("int64"))
            if f"{name}.offsets" not in split:
                return values
            offsets = split[f"{name}.offsets"][:]
        return [values[a:b] for a, b in zip(offsets, offsets[1:])]

    @torch.no_grad()
    def loss(self, name, model):
        if name == "bert":
            pairs = zip(self.column("classification", "tokens"), self.column("classification", "label"))
            losses = [cross_entropy(model(input_ids=tokens[None]).logits[0], label) for tokens, label in pairs]
            return (sum(losses) / len(losses)).item()
        total, count = 0.0, 0
        for tokens, mask in zip(self.column("sums", "tokens"), self.column("sums", "loss_mask")):
            targets = torch.where(mask[1:] == 1, tokens[1:], -100)
            total += cross_entropy(model(input_ids=tokens[None]).logits[0][-len(tokens) : -1], targets, ignore_index=-100, reduction="sum").item()
            count += int((mask[1:] == 1).sum())
        return total / count

    def ours(self, name, base, strategy, adapter):
        """The loss of one step's model that did not move; or what Attune said when it refused."""
        data, kind = ("classification", "classification") if base == "bert" else ("sums", "instruction")
        more = 'pooling = "cls"\n' if base == "bert" else ""
        lines = "".join(f"{key} = {toml(value)}\n" for key, value in strategy.items())
        text = (f'name = "{name}"\n[model]\nplugin = "{PLUGINS[base]}"\npath = "{base}"\n{more}[dataset]\nplugin = "{kind}"\npath = "{data}.h5"\n'
                f'[strategy]\n{lines}adapter = "{adapter}"\n[train]\nsteps = 1\nglobal_batch = 4\nmicro_batch = 4\nlearning_rate = 1e-12\n')
        (self.place / f"{name}.toml").write_text(text)
        process = self.place.start(self.program, "train", f"{name}.toml")
        said, _ = process.communicate(timeout=120)
        check(process.returncode in (0, 2), f"{name}: ends with {process.returncode}: {said}\n{text}")
        if process.returncode == 2:
            return said.strip().splitlines()[-1]
        return json.loads((self.place / "runs" / name / "evaluation.json").read_text())["tuned"]["loss"]


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{key}" = {number}' for key, number in value.items()) + " }"
    return json.dumps(value)


def moved(model, by):
    """What starts at zero or one would hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * by)
    return model


def rows_of(config):
    """Attune's options for the rows of tokens that PEFT trains."""
    rows = config.trainable_token_indices
    if not isinstance(rows, dict):
        return {"token_rows": rows or []}
    return {"token_rows" if module != "lm_head" else "head_rows": ids for module, ids in rows.items()}


def strategy_of(config, model, base):
    """Attune's options for the modules that PEFT adapted."""
    kind = type(config)
    if kind is LoraConfig:
        layers = {name.removeprefix("base_model.model."): module for name, module in model.named_modules() if hasattr(module, "lora_A") and "default" in module.lora_A}
        init = config.init_lora_weights if config.init_lora_weights in ("pissa", "olora") and not config.use_dora else "default"
        return {"plugin": "lora", "targets": list(layers), "rank_pattern": {name: layer.r["default"] for name, layer in layers.items()},
                "alpha_pattern": {name: layer.lora_alpha["default"] for name, layer in layers.items()}, "rslora": bool(config.use_rslora), "dora": bool(config.use_dora),
                "init": init, "bias": config.bias, "lora_bias": bool(config.lora_bias), "save": [] if base == "bert" else list(config.modules_to_save or [])} | rows_of(config)
    if kind is IA3Config:
        layers = {name.removeprefix("base_model.model."): module for name, module in model.named_modules() if hasattr(module, "ia3_l") and "default" in module.ia3_l}
        return {"plugin": "ia3", "targets": list(layers), "feedforward": [name for name, layer in layers.items() if layer.is_feedforward]}
    if kind is VeraConfig:
        layers = [name.removeprefix("base_model.model.") for name, module in model.named_modules() if hasattr(module, "vera_lambda_d") and "default" in module.vera_lambda_d]
        return {"plugin": "vera", "rank": config.r, "targets": layers, "projection_seed": config.projection_prng_key}
    return {"plugin": "prefix" if kind is PrefixTuningConfig else "prompt", "tokens": config.num_virtual_tokens}


def compare(case, name, base, config, refused=None, seed=1):
    """refused: the key that the refusal has to name; None: the loss has to be PEFT's."""
    torch.manual_seed(seed)
    model = moved(get_peft_model(case.base(base), config), 2 if isinstance(config, IA3Config) else 0.2).eval()
    model.save_pretrained(case.place / f"adapter-{name}")
    try:
        loaded = PeftModel.from_pretrained(case.base(base), case.place / f"adapter-{name}").eval()  # whose patterns are in the file's order
    except RuntimeError as error:  # PEFT sorts the patterns when it saves them: the first that fits may be another one than in training
        check("size mismatch" in str(error), f"{name}: {error}")
        ours = case.ours(name, base, strategy_of(config, model, base), f"adapter-{name}")
        check(isinstance(ours, str), f"{name}: PEFT cannot load what it saved, and Attune does not either: {ours}")
        return print(f"{name}: unreadable for PEFT; {ours}", flush=True)
    ours = case.ours(name, base, strategy_of(config, loaded, base), f"adapter-{name}")
    if refused:
        check(isinstance(ours, str) and refused in ours, f"{name}: refused by a sentence that names {refused}: {ours}")
        return print(f"{name}: {ours}", flush=True)
    theirs = case.loss(base, loaded)
    plain = case.loss(base, case.base(base))
    check(not isinstance(ours, str), f"{name}: is accepted: {ours}\n{config}")
    check(seed > 1 or abs(theirs - plain) > 20 * TOLERANCE, f"{name}: the adapter matters: {theirs} {plain}")  # one drawn at random may be weak
    check(abs(ours - theirs) <= TOLERANCE * abs(theirs), f"{name}: loss {ours} and in PEFT {theirs}\n{config}")
    print(f"{name}: loss {ours:.6f}, in PEFT {theirs:.6f}, of the base {plain:.6f}", flush=True)


LORA = dict(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
PATTERNS = dict(rank_pattern={r".*\.0\..*": 2, "q_proj": 6}, alpha_pattern={"q_proj": 3, r"layers\.\d\.self_attn\.(q|v)_proj": 20, "down_proj": 5})


def fixed():
    lora = lambda **more: LoraConfig(**LORA | more)
    yield "patterns", "llama", lora(**PATTERNS), None
    yield "expression", "untied", lora(target_modules=r".*\.(q|k)_proj", exclude_modules=r".*layers\.1\.self_attn\.k.*", use_rslora=True, bias="all"), None
    yield "layers", "llama", lora(layers_to_transform=[1], layers_pattern="layers", use_dora=True), None
    yield "pissa", "llama", lora(init_lora_weights="pissa", use_rslora=True), None
    yield "olora", "untied", lora(init_lora_weights="olora", alpha_pattern={"q_proj": 2}), None
    yield "conv1d", "gpt2", lora(target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, init_lora_weights="pissa", bias="lora_only"), None
    yield "classifier", "bert", LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=3, target_modules="all-linear", exclude_modules=["pooler.dense"], init_lora_weights="gaussian"), None
    yield "saved", "untied", lora(modules_to_save=["model.norm", "embed_tokens", "lm_head"]), None
    yield "lora-bias", "gpt2", lora(target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, lora_bias=True, use_rslora=True), None
    yield "rows-tied", "llama", lora(trainable_token_indices=[5, 3, 40]), None
    yield "rows-tied-named", "llama", lora(trainable_token_indices={"embed_tokens": [5, 3], "lm_head": [5, 3]}, use_dora=True), None
    yield "rows-untied", "untied", lora(trainable_token_indices=[5, 3]), None
    yield "rows-of-both", "untied", lora(trainable_token_indices={"embed_tokens": [5, 3, 11], "lm_head": [7, 9]}, bias="all"), None
    yield "rows-of-head", "untied", lora(trainable_token_indices={"lm_head": [7, 9]}), None
    yield "rows-gpt2", "gpt2", lora(target_modules=["c_attn"], trainable_token_indices=[4, 6, 8]), None
    yield "rows-bert", "bert", LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query"], trainable_token_indices=[2, 3, 5, 8]), None
    yield "rows-parted", "llama", lora(trainable_token_indices={"lm_head": [7]}), "head_rows"
    yield "empty-pattern", "llama", lora(layers_to_transform=[1], layers_pattern=""), None
    yield "saved-embedding", "untied", lora(target_modules=["q_proj", "embed_tokens"]), "embed_tokens"
    yield "ia3", "gpt2", IA3Config(task_type="CAUSAL_LM", target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"]), None
    yield "vera-drawn", "llama", VeraConfig(task_type="CAUSAL_LM", r=8, target_modules=["q_proj", "up_proj"], save_projection=False, projection_prng_key=7, d_initial=0.3), None
    yield "prefix-projected", "llama", PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, prefix_projection=True, encoder_hidden_size=16), None
    yield "prompt", "llama", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4), None
    yield "niter", "llama", lora(init_lora_weights="pissa_niter_4"), "init_lora_weights"
    yield "pissa-dora", "llama", lora(init_lora_weights="pissa", use_dora=True), "init_lora_weights"
    yield "tied", "llama", lora(modules_to_save=["embed_tokens"]), "embed_tokens"


def random_lora(rng):
    """A base and a configuration; some hold what Attune refuses, which it then has to name."""
    base = rng.choice(["llama", "untied", "untied", "gpt2"])
    names = ["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"] if base == "gpt2" else ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    path = "h" if base == "gpt2" else "layers"
    expressions = [*names, ".*" + names[0], rf".*\.{path}\.0\..*", rf"{path}\.1\.(self_attn|attn|mlp)\..*", ".*mlp.*", f"^.*{path}.[01].*{names[1].split('.')[-1]}", "proj", ".*", r"(.+\.)?1\..+"]
    config = dict(task_type="CAUSAL_LM", r=rng.choice([2, 4, 6]), lora_alpha=rng.choice([1, 5, 16]), use_rslora=rng.random() < 0.3, use_dora=rng.random() < 0.2)
    patterns = lambda values: {expression: rng.choice(values) for expression in rng.sample(expressions, rng.randint(0, 4))}
    config |= dict(rank_pattern=patterns([2, 4, 8]), alpha_pattern=patterns([1, 3, 7, 20]))
    way = rng.random()
    if way < 0.25:
        config["target_modules"] = rng.choice(["all-linear", rf".*({'|'.join(name.split('.')[-1] for name in rng.sample(names, 2))})", rf".*{path}\.1\..*({names[0]}|{names[-1]})"])
    else:
        config["target_modules"] = rng.sample(names, rng.randint(1, len(names)))
        if way < 0.6:
            config["layers_to_transform"] = rng.choice([0, 1, [0], [1], [0, 1], []])
            config["layers_pattern"] = rng.choice([None, path, [path], []])
    if rng.random() < 0.3:
        config["exclude_modules"] = rng.choice([[names[0]], rf".*{path}\.0\..*", [rng.choice(names)]])
    config["init_lora_weights"] = rng.choice([True, False, "gaussian", "orthogonal", "pissa", "olora" if base != "gpt2" else "pissa", "eva"])
    config["bias"] = rng.choice(["none", "none", "all", "lora_only"])
    if base == "untied" and rng.random() < 0.3:
        config["modules_to_save"] = rng.choice([["model.norm"], ["lm_head"], ["embed_tokens"]])
    elif rng.random() < 0.3:
        config["trainable_token_indices"] = rng.sample(range(40), rng.randint(1, 8))
    config["fan_in_fan_out"] = rng.random() < 0.5
    config["lora_bias"] = config["init_lora_weights"] in (True, False) and not config["use_dora"] and rng.random() < 0.3
    refused = "init_lora_weights" if config["use_dora"] and config["init_lora_weights"] in ("pissa", "olora") else None
    return base, config, refused


def main():
    case = Case(Path(sys.argv[1]).resolve(), sys.argv[2])
    if len(sys.argv) < 4:
        for name, base, config, refused in fixed():
            compare(case, name, base, config, refused)
        return
    end, seed, done = time.monotonic() + float(sys.argv[3]), 0, 0
    while time.monotonic() < end:
        seed += 1
        base, config, refused = random_lora(random.Random(seed))
        try:
            with torch.no_grad():
                get_peft_model(case.base(base), LoraConfig(**config))
        except ValueError:
            continue  # PEFT has nothing to adapt, or does not take it
        compare(case, f"random-{seed}", base, LoraConfig(**config), refused, seed)
        done += 1
    check(done >= 5, f"only {done} configurations were compared")
    print(f"{done} configurations")


main()
