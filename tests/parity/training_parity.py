"""Twenty optimizer steps of every strategy that PEFT has, and of the preference losses, equal those of transformers and peft: same base, same
first adapter, same samples.

Usage: training_parity.py CASE BUILD_FOLDER [DEVICE]

CASE: tiny (a random Llama, all strategies) or smollm2 (the real model, LoRA). DEVICE: where both compute, as parallel.device names it (default: cpu); of "sim",
which transformers does not have, transformers computes on the CPU.
"""
import json
import sys
from pathlib import Path

import h5py
import torch
from peft import IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig, VeraConfig, get_peft_model
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, logsigmoid
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check, make_model

STEPS, LOSS, WEIGHTS = 20, 1e-4, 1e-3
RATES = {"ia3": 3e-2, "vera": 3e-2, "prefix": 1e-2, "prompt": 3e-1}  # few parameters want a higher one
RATE = 1e-3


class Case:
    """A base model, and a data file of a few samples; every step sees all of them."""

    def __init__(self, name, build, device="cpu"):
        self.device = device
        self.theirs = "cpu" if device == "sim" else device
        self.plugins = f'plugins = ["{build}/tests/simdev/sim.so"]\n' if device == "sim" else ""
        self.source = Path(__file__).resolve().parent.parent.parent
        self.program = build / "attune"
        self.place = Workplace(build / "tests" / f"training_parity_{name}_{device}")
        if name == "tiny":
            make_model(self.place / "model", max_position_embeddings=256)
            self.path, self.file, self.template, rows = self.place / "model", None, "plain", 6
        else:
            self.path, self.file, self.template, rows = self.source / "models/smollm2-135m", "SmolLM2-135M-Instruct.Q4_1.gguf", None, 4
        glossary = [json.loads(line) for line in (self.source / "data/foldoc/train.jsonl").read_text().splitlines()[:2000]]
        short = [entry for entry in glossary if 60 < len(entry["prompt"]) + len(entry["response"]) < 110]
        self.prepare("instruction", short[:rows], short[rows : rows + 1], "")
        pairs = [{"prompt": a["prompt"], "chosen": a["response"], "rejected": b["response"]} for a, b in zip(short[: rows + 1], short[rows + 1 :])]
        self.prepare("preference", pairs[:rows], pairs[rows:], 'layout = "preference"')
        self.prepare("preference", pairs[:2], pairs[rows:], 'layout = "preference"', "two")
        self.rows = rows

    def prepare(self, kind, train, validation, layout, name=None):
        name = name or kind
        recipe = f'name = "{name}"\nkind = "{kind}"\nlicence = "GFDL-1.1-or-later"\noutput = "{name}.h5"\ntokenizer = "{self.path / self.file if self.file else self.path}"\n'
        if self.template:
            recipe += f'template = "{self.template}"\n'
        for split, rows in (("train", train), ("validation", validation)):
            (self.place / f"{name}-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            recipe += f'[[source]]\npath = "{name}-{split}.jsonl"\nsplit = "{split}"\n{layout}\n'
        (self.place / f"{name}.toml").write_text(recipe)
        self.place.run(self.program, "prepare", f"{name}.toml")

    def rate(self, method):
        """The real model learns a few samples by heart at the tiny one's rate, and what is left of the loss is rounding."""
        return RATES.get(method, RATE) * (0.1 if self.file else 1)

    def model(self):
        model = AutoModelForCausalLM.from_pretrained(self.path, gguf_file=self.file, dtype=torch.float32)
        return model.eval().to(self.theirs)

    def column(self, data, name):
        with h5py.File(self.place / f"{data}.h5") as file:
            values, offsets = file["train"][name][:], file["train"][f"{name}.offsets"][:]
        return [torch.tensor(values[a:b].astype("int64"), device=self.theirs) for a, b in zip(offsets, offsets[1:])]

    def run(self, name, data, strategies, adapter=None, steps=STEPS, rate=None):
        """Its losses, and the folder of what it made."""
        kind, rows = ("preference", 2) if data == "two" else (data, self.rows)
        text = f'{self.plugins}name = "{name}"\n[parallel]\ndevice = "{self.device}"\n[model]\nplugin = "llama"\npath = "{self.path}"\n[dataset]\nplugin = "{kind}"\npath = "{data}.h5"\n'
        for i, strategy in enumerate(strategies):
            text += "[[strategy]]\n" + "".join(f"{key} = {json.dumps(value)}\n" if not isinstance(value, dict) else f"{key} = {{ " + ", ".join(f'"{k}" = {v}' for k, v in value.items()) + " }\n"
                                               for key, value in strategy.items())
            if adapter and i == 0:
                text += f'adapter = "{adapter}"\n'
        text += f'[train]\nsteps = {steps}\nglobal_batch = {rows}\nmicro_batch = 2\nlearning_rate = {rate or self.rate(name)}\nschedule = "constant"\nclip = 1.0\n[evaluate]\nsamples = 1\n'
        (self.place / f"{name}.toml").write_text(text)
        self.place.run(self.program, "train", f"{name}.toml", timeout=900)
        return [event["loss"] for event in self.place.events(name, "step_end")], self.place / "runs" / name / ("model" if strategies[0]["plugin"] == "full" else "adapter")


def randomised(model):
    """What starts at zero or one would hide mistakes."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


def train(model, loss_of, scaled=None, *, rate):
    """Plain loop; loss_of gives the mean over all targets. scaled: learning rates of some parameters, by their names' part, as factors."""
    groups = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = next((factor for part, factor in (scaled or {}).items() if part in name), 1)
            groups.setdefault(factor, []).append(parameter)
    optimizer = torch.optim.AdamW([{"params": group, "lr": rate * factor} for factor, group in groups.items()], weight_decay=0)
    losses = []
    for _ in range(STEPS):
        loss = loss_of(model)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def supervised(case):
    samples = list(zip(case.column("instruction", "tokens"), case.column("instruction", "loss_mask")))

    def loss_of(model):
        total, count = 0, 0
        for tokens, mask in samples:
            logits = model(input_ids=tokens[None]).logits[0]
            targets = torch.where(mask[1:] == 1, tokens[1:], -100)
            total = total + cross_entropy(logits[-len(tokens) : -1], targets, ignore_index=-100, reduction="sum")
            count += int((mask[1:] == 1).sum())
        return total / count

    return loss_of


def compare(name, ours, theirs, ours_adapter=None, theirs_adapter=None):
    check(len(ours) == len(theirs) == STEPS, f"{name}: {STEPS} steps")
    worst = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs))
    check(worst <= LOSS, f"{name}: losses differ by {worst:.1e}: {ours} {theirs}")
    check(abs(theirs[0] - theirs[-1]) > 1e-3 * abs(theirs[0]), f"{name}: the loss moves: {theirs}")
    weights = 0.0
    if ours_adapter:
        a, b = (load_file(next(folder.glob("*model.safetensors"))) for folder in (ours_adapter, theirs_adapter))
        check(set(a) == set(b), f"{name}: the same tensors: {set(a) ^ set(b)}")
        weights = max((a[key].float() - b[key].float()).abs().max().item() for key in a)
        check(weights <= WEIGHTS, f"{name}: final weights differ by {weights:.1e}")
    print(f"{name}: {STEPS} losses from {theirs[0]:.4f} to {theirs[-1]:.4f} differ by {worst:.1e}, final weights by {weights:.1e}", flush=True)


ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA = dict(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=ALL)
METHODS = {
    "lora": ({"plugin": "lora", "rank": 4, "alpha": 8.0}, LoraConfig(**LORA), None),
    "rslora": ({"plugin": "lora", "rank": 4, "alpha": 8.0, "rslora": True, "targets": ["q_proj", "v_proj"]}, LoraConfig(**LORA | dict(use_rslora=True, target_modules=["q_proj", "v_proj"])), None),
    "patterns": ({"plugin": "lora", "rank": 4, "alpha": 8.0, "rank_pattern": {"down_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 3}},
                 LoraConfig(**LORA | dict(rank_pattern={"down_proj": 2}, alpha_pattern={r"layers\.1\.mlp\.up_proj": 3})), None),
    "dora": ({"plugin": "lora", "rank": 4, "alpha": 8.0, "dora": True}, LoraConfig(**LORA | dict(use_dora=True)), None),
    "loraplus": ({"plugin": "lora", "rank": 4, "alpha": 8.0, "b_learning_rate": 8.0}, LoraConfig(**LORA), {"lora_B": 8}),
    "saved": ({"plugin": "lora", "rank": 4, "alpha": 8.0, "save": ["norm"]}, LoraConfig(**LORA | dict(modules_to_save=["model.norm"])), None),
    "rows": ({"plugin": "lora", "rank": 4, "alpha": 8.0, "token_rows": [5, 31, 9, 12]}, LoraConfig(**LORA | dict(trainable_token_indices=[5, 31, 9, 12])), None),
    "ia3": ({"plugin": "ia3"}, IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]), None),
    "vera": ({"plugin": "vera", "rank": 8}, VeraConfig(task_type="CAUSAL_LM", r=8, target_modules=ALL), None),
    "prefix": ({"plugin": "prefix", "tokens": 5}, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5), None),
    "prompt": ({"plugin": "prompt", "tokens": 5}, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5), None),
}


def method(case, name):
    strategy, config, scaled = METHODS[name]
    torch.manual_seed(1)
    theirs = randomised(get_peft_model(case.model(), config))
    theirs.eval()
    folder = case.place / f"first-{name}"
    theirs.save_pretrained(folder)
    losses, adapter = case.run(name, "instruction", [strategy], folder)
    reference = train(theirs, supervised(case), scaled, rate=case.rate(name))
    theirs.save_pretrained(case.place / f"last-{name}")
    compare(name, losses, reference, adapter, case.place / f"last-{name}")


def full(case):
    """All weights."""
    theirs = case.model()
    losses, model = case.run("full", "instruction", [{"plugin": "full"}])
    reference = train(theirs, supervised(case), rate=case.rate("full"))
    theirs.save_pretrained(case.place / "last-full")
    compare("full", losses, reference, model, case.place / "last-full")


def saved_weights(checkpoint):
    """What a checkpoint of one rank holds of what is trained."""
    weights = {}
    with h5py.File(checkpoint / "state-0000-00.h5") as file:
        file.visititems(lambda _, item: weights.update({item.attrs["name"]: torch.tensor(item[()])}) if "name" in item.attrs else None)
    return {name.decode() if isinstance(name, bytes) else name: tensor for name, tensor in weights.items()}


def projected_prefix(case):
    """PEFT keeps what the network gives and not the network, so both start from the one that a run of one step, too short to move it, has saved."""
    name, strategy = "prefix-projected", {"plugin": "prefix", "tokens": 5, "projection": 24}
    case.run(f"{name}-first", "instruction", [strategy], steps=1, rate=1e-30)
    torch.manual_seed(1)
    theirs = get_peft_model(case.model(), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, prefix_projection=True, encoder_hidden_size=24)).eval()
    encoder = theirs.prompt_encoder["default"]
    first = saved_weights(case.place / "runs" / f"{name}-first/checkpoints/step-000001")
    with torch.no_grad():
        for ours, parameter in (("embedding", encoder.embedding.weight), ("inner_weight", encoder.transform[0].weight), ("inner_bias", encoder.transform[0].bias),
                                ("outer_weight", encoder.transform[2].weight), ("outer_bias", encoder.transform[2].bias)):
            parameter.copy_(first[f"weights/virtual_tokens.{ours}"])
    losses, adapter = case.run(name, "instruction", [strategy], rate=1e-3)
    reference = train(theirs, supervised(case), rate=1e-3)
    theirs.save_pretrained(case.place / f"last-{name}")
    compare(name, losses, reference, adapter, case.place / f"last-{name}")


def pairs(case, data):
    """(chosen, rejected) of every pair: tokens, and where the answer begins."""
    return [((torch.cat([p, c]), len(p)), (torch.cat([p, r]), len(p))) for p, c, r in zip(*(case.column(data, name) for name in ("prompt", "chosen", "rejected")))]


def exchanged(two):
    """Each of two prompts with the answers to the other."""
    return [tuple((torch.cat([tokens[:begin], other[other_begin:]]), begin) for (tokens, begin), (other, other_begin) in zip(pair, others)) for pair, others in (two, two[::-1])]


def answer_log_probability(model, answer):
    tokens, begin = answer
    logs = model(input_ids=tokens[None]).logits[0, :-1].log_softmax(-1).gather(1, tokens[1:, None]).squeeze(1)[begin - 1 :]
    return logs.sum(), len(logs)


def preference(case, name, strategy, pair_loss, over="lora", data="preference"):
    """pair_loss: from the log-probabilities of chosen and rejected under model and base, and their lengths, as TRL has it. Of the data "two" these are
    followed by those of the pairs with exchanged answers."""
    compared = pairs(case, data)
    if data == "two":
        compared += exchanged(compared)
    base = case.model()
    with torch.no_grad():
        references = [[answer_log_probability(base, answer)[0] for answer in pair] for pair in compared]
    torch.manual_seed(1)
    theirs, folder = case.model(), None
    if over == "lora":
        theirs, folder = randomised(get_peft_model(theirs, LoraConfig(**LORA))).eval(), case.place / f"first-{name}"
        theirs.save_pretrained(folder)
    losses, adapter = case.run(name, data, [METHODS["lora"][0] if over == "lora" else {"plugin": over}, strategy], folder)

    def loss_of(model):
        computed = [[answer_log_probability(model, answer) for answer in pair] for pair in compared]
        return pair_loss(computed, references)

    rewards = first_rewards(theirs, compared, references, strategy)
    reference = train(theirs, loss_of, rate=case.rate(name))
    theirs.save_pretrained(case.place / f"last-{name}")
    compare(name, losses, reference, adapter, case.place / f"last-{name}")
    reported = case.place.events(name, "step_end")[0]["scalars"]
    for key, expected in rewards.items():
        check(abs(reported[key] - expected) <= 1e-4 * max(1, abs(expected)), f"{name}: {key} is {reported[key]}, TRL's definition gives {expected}")
    check(over == "full" or strategy["plugin"] == "orpo" or abs(rewards["rewards/margins"]) > 1e-4, f"{name}: rewards that differ: {rewards}")


def first_rewards(model, compared, references, strategy):
    """As TRL's DPOTrainer, ORPOTrainer and KTOTrainer log them, before the first step."""
    kto = strategy["plugin"] == "kto"
    chosen, rejected, ratios = [], [], []
    with torch.no_grad():
        for pair, base in zip(compared, references):
            (c, nc), (r, nr) = (answer_log_probability(model, answer) for answer in pair)
            if strategy["plugin"] == "orpo":
                c, r = 0.1 * c / nc, 0.1 * r / nr
            else:
                c, r = c - base[0], r - base[1]
                ratios += [c, r]
                if strategy.get("form") == "ipo":
                    c, r = c / nc, r / nr
                c, r = strategy["beta"] * c, strategy["beta"] * r
            chosen.append(c)
            rejected.append(r)
    if kto:
        chosen, rejected, ratios = chosen[:2], rejected[:2], ratios[4:]
    chosen, rejected = torch.stack(chosen), torch.stack(rejected)
    rewards = {"rewards/chosen": chosen.mean(), "rewards/rejected": rejected.mean(), "rewards/margins": (chosen - rejected).mean(),
               "rewards/accuracies": (chosen > rejected).float().mean()}
    if kto:
        rewards["kl"] = torch.stack(ratios).mean().clamp(min=0)
    return {name: value.item() for name, value in rewards.items()}


def dpo(beta, form="sigmoid", smoothing=0.0):
    def pair_loss(computed, references):
        losses = []
        for ((c, nc), (r, nr)), (base_c, base_r) in zip(computed, references):
            if form == "ipo":
                losses.append(((c - base_c) / nc - (r - base_r) / nr - 1 / (2 * beta)) ** 2)
            elif form == "hinge":
                losses.append(torch.relu(1 - beta * ((c - base_c) - (r - base_r))))
            else:
                margin = (c - base_c) - (r - base_r)
                losses.append(-logsigmoid(beta * margin) * (1 - smoothing) - logsigmoid(-beta * margin) * smoothing)
        return torch.stack(losses).mean()

    return pair_loss


def orpo(computed, _references):
    losses = []
    for (c, nc), (r, nr) in computed:
        c, r = c / nc, r / nr
        log_odds = (c - r) - (torch.log1p(-torch.exp(c)) - torch.log1p(-torch.exp(r)))
        losses.append(-c - 0.1 * logsigmoid(log_odds))
    return torch.stack(losses).mean()


def kto(beta, undesirable):
    """The reference point is the mean over the exchanged answers, and at least zero (TRL's KTOTrainer.kto_loss)."""
    def pair_loss(computed, references):
        log_ratios = [(c - base_c, r - base_r) for ((c, _), (r, _)), (base_c, base_r) in zip(computed, references)]
        moved = torch.stack([ratio for pair in log_ratios[2:] for ratio in pair]).mean().detach().clamp(min=0)
        losses = []
        for chosen, rejected in log_ratios[:2]:
            losses += [1 - torch.sigmoid(beta * (chosen - moved)), undesirable * (1 - torch.sigmoid(beta * (moved - rejected)))]
        return torch.stack(losses).mean()

    return pair_loss


def main():
    name, build = sys.argv[1], Path(sys.argv[2]).resolve()
    torch.set_num_threads(1 if name == "tiny" else 2)  # threads that wait for each other are slow on a busy machine
    case = Case(name, build, *sys.argv[3:])
    for each in METHODS if name == "tiny" else ("lora",):
        method(case, each)
    if name == "tiny":
        full(case)
        preference(case, "dpo", {"plugin": "dpo", "beta": 0.3}, dpo(0.3))
        preference(case, "cdpo", {"plugin": "dpo", "beta": 0.3, "label_smoothing": 0.2}, dpo(0.3, smoothing=0.2))
        preference(case, "ipo", {"plugin": "dpo", "beta": 0.3, "form": "ipo"}, dpo(0.3, "ipo"))
        preference(case, "hinge", {"plugin": "dpo", "beta": 0.3, "form": "hinge"}, dpo(0.3, "hinge"))
        preference(case, "orpo", {"plugin": "orpo"}, orpo)
        preference(case, "kto", {"plugin": "kto", "beta": 0.5, "undesirable": 0.7}, kto(0.5, 0.7), data="two")
        preference(case, "dpo-full", {"plugin": "dpo", "beta": 0.3}, dpo(0.3), over="full")
        projected_prefix(case)


if __name__ == "__main__":
    main()
