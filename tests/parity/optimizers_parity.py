"""Every optimizer's updates equal those of its reference, and every schedule's learning rates those of transformers.

Usage: optimizers_parity.py PROGRAM BUILD_FOLDER

AdamW, SGD and Muon: torch.optim. Adafactor: transformers.optimization. Lion: algorithm 2 of the paper, written below.
"""
import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.optimization import Adafactor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check

STEPS, WRITTEN, SCALE = 25, [0, 9, 24], 0.25
SHAPES = {"block.tall": (48, 16), "block.wide": (8, 40), "block.large": (4096, 65), "block.convolution": (6, 4, 3, 3), "block.depthwise": (5, 1, 3, 3),
          "block.row": (1, 24), "block.bias": (24,), "scalar": (), "embedding": (300, 16), "head": (5, 16)}
GROUPS = [{"parameters": ["block.tall", "block.wide", "block.depthwise", "embedding"], "learning_rate_scale": 1.0, "weight_decay_scale": 1.0},
          {"parameters": ["block.bias", "scalar"], "learning_rate_scale": 1.0, "weight_decay_scale": 0.0},
          {"parameters": ["block.convolution", "block.row", "head"], "learning_rate_scale": 0.1, "weight_decay_scale": 0.5}]

LARGE = {"parameters": ["block.large"], "learning_rate_scale": 1.0, "weight_decay_scale": 1.0}  # for AdamW, which has memory of its own for those


def groups_of(name):
    return [*GROUPS, LARGE] if name.startswith("adamw") else GROUPS


def drawn():
    """Parameters, and the gradients of every step; of the embedding's rows most have none, as of words that do not occur."""
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    for step in range(STEPS):
        for name, shape in SHAPES.items():
            gradient = torch.randn(shape, generator=generator) * (1 + step % 3)
            if name == "embedding":
                gradient[torch.rand(shape[0], generator=generator) < 0.9] = 0
                gradient[150:] = 0
            tensors[f"gradient.{step}.{name}"] = gradient
    return tensors


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, arXiv:2302.06675, algorithm 2."""

    def __init__(self, groups, beta1=0.9, beta2=0.99):
        super().__init__(groups, dict(beta1=beta1, beta2=beta2))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for theta in group["params"]:
                m = self.state[theta].setdefault("m", torch.zeros_like(theta))
                c = group["beta1"] * m + (1 - group["beta1"]) * theta.grad
                theta -= group["lr"] * (torch.sign(c) + group["weight_decay"] * theta)
                m.mul_(group["beta2"]).add_(theta.grad, alpha=1 - group["beta2"])  # rounded as ours: of a c near 0 the sign depends on it


class DecoupledSgd(torch.optim.SGD):
    """The decay of AdamW before the update of SGD (Loshchilov and Hutter 2019, algorithm 1)."""

    @torch.no_grad()
    def step(self):
        decays = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            group["weight_decay"] = 0
        super().step()
        for group, decay in zip(self.param_groups, decays):
            group["weight_decay"] = decay


class MuonAndAdamW:
    """As users of torch.optim.Muon have it: hidden matrices to Muon, everything else to AdamW. Convolutions are matrices [out, in k k]."""

    def __init__(self, groups, names, bfloat16=False, adamw_factor=1.0, adamw=dict(betas=(0.9, 0.95), eps=1e-10), **muon):
        self.bfloat16, self.factor = bfloat16, adamw_factor
        hidden, others, self.views = [], [], []
        for group in groups:
            ours = {key: value for key, value in group.items() if key != "params"}
            is_hidden = [names[p].startswith("block.") and p.dim() > 1 and min(p.flatten(1).shape) > 1 for p in group["params"]]
            matrices = []
            for p in (p for p, its in zip(group["params"], is_hidden) if its):
                view = p.detach().flatten(1)  # shares the parameter's memory
                self.views.append((p, view))
                matrices.append(view)
            rest = [p for p, its in zip(group["params"], is_hidden) if not its]
            hidden.append(ours | {"params": matrices})
            others.append(ours | {"params": rest})
        self.hidden = torch.optim.Muon([g for g in hidden if g["params"]], **muon)
        self.others = torch.optim.AdamW([g for g in others if g["params"]], **adamw)
        self.param_groups = self.hidden.param_groups + self.others.param_groups
        for group in self.others.param_groups:
            group["factor"] *= adamw_factor

    def step(self):
        for parameter, view in self.views:
            view.grad = parameter.grad.flatten(1)
        as_it_is = torch.Tensor.bfloat16
        if not self.bfloat16:
            torch.Tensor.bfloat16 = torch.Tensor.clone  # the reference's iteration in float32
        try:
            self.hidden.step()
        finally:
            torch.Tensor.bfloat16 = as_it_is
        self.others.step()


def cases():
    """Name, plugin, its options, weight decay, reference from parameter groups and the names of parameters, data type."""
    adamw, sgd, decoupled, muon = torch.optim.AdamW, torch.optim.SGD, DecoupledSgd, MuonAndAdamW
    adafactor = partial(Adafactor, relative_step=False, warmup_init=False)
    for decay in (0.0, 0.1):
        with_decay = f"decay {decay}"
        yield f"adamw, {with_decay}", "adamw", {}, decay, lambda groups, _: adamw(groups)
        yield f"adamw, other betas, {with_decay}", "adamw", {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-6}, decay, lambda groups, _: adamw(groups, betas=(0.8, 0.95), eps=1e-6)
        yield f"sgd, {with_decay}", "sgd", {}, decay, lambda groups, _: decoupled(groups)
        yield f"sgd, momentum, {with_decay}", "sgd", {"momentum": 0.9}, decay, lambda groups, _: decoupled(groups, momentum=0.9)
        yield f"sgd, nesterov, {with_decay}", "sgd", {"momentum": 0.9, "nesterov": True}, decay, lambda groups, _: decoupled(groups, momentum=0.9, nesterov=True)
        yield f"sgd, coupled, {with_decay}", "sgd", {"coupled_decay": True}, decay, lambda groups, _: sgd(groups)
        yield (f"sgd, coupled, nesterov, {with_decay}", "sgd", {"coupled_decay": True, "momentum": 0.8, "nesterov": True}, decay,
               lambda groups, _: sgd(groups, momentum=0.8, nesterov=True))
        yield f"lion, {with_decay}", "lion", {}, decay, lambda groups, _: Lion(groups)
        yield f"lion, other betas, {with_decay}", "lion", {"beta1": 0.95, "beta2": 0.98}, decay, lambda groups, _: Lion(groups, 0.95, 0.98)
        yield f"adafactor, {with_decay}", "adafactor", {}, decay, lambda groups, _: adafactor(groups, scale_parameter=False)
        yield f"adafactor, scaled, {with_decay}", "adafactor", {"scale_parameter": True}, decay, lambda groups, _: adafactor(groups, scale_parameter=True)
        yield (f"adafactor, other options, {with_decay}", "adafactor", {"beta1": 0.9, "decay_rate": 0.7, "clip_threshold": 0.5, "epsilon1": 1e-8, "epsilon2": 0.2, "scale_parameter": True},
               decay, lambda groups, _: adafactor(groups, scale_parameter=True, beta1=0.9, decay_rate=-0.7, clip_threshold=0.5, eps=(1e-8, 0.2)))
        yield f"muon, {with_decay}", "muon", {}, decay, lambda groups, names: muon(groups, names, adjust_lr_fn="match_rms_adamw")
        yield (f"muon, original, {with_decay}", "muon", {"adjust": "original", "adamw_learning_rate": 0.5, "momentum": 0.9, "nesterov": False, "iterations": 3}, decay,
               lambda groups, names: muon(groups, names, adamw_factor=0.5, momentum=0.9, nesterov=False, ns_steps=3, adjust_lr_fn="original"))
        yield (f"muon, bfloat16, {with_decay}", "muon", {"precision": "bfloat16", "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}, decay,
               lambda groups, names: muon(groups, names, bfloat16=True, adamw={}, adjust_lr_fn="match_rms_adamw"))
    yield "adamw, parameters in bfloat16", "adamw", {}, 0.1, lambda groups, _: adamw(groups, fused=True)
    yield "adafactor, parameters in bfloat16", "adafactor", {}, 0.1, lambda groups, _: adafactor(groups, scale_parameter=False)


def dtype_of(name):
    return "bfloat16" if name.endswith("in bfloat16") else "float32"


def rates():
    """Of every step: none is like the one before it."""
    return [2e-3 * (1 + step) / STEPS for step in range(STEPS)]


def reference(tensors, case, decay, make):
    """The parameters after the steps that are compared."""
    dtype, all_groups = getattr(torch, dtype_of(case)), groups_of(case)
    parameters = {name: tensors[name].to(dtype).clone().requires_grad_() for group in all_groups for name in group["parameters"]}
    groups = [{"params": [parameters[name] for name in group["parameters"]], "lr": 1e-3, "weight_decay": decay * group["weight_decay_scale"], "factor": group["learning_rate_scale"]}
              for group in all_groups]
    optimizer = make(groups, {parameter: name for name, parameter in parameters.items()})
    found = {}
    for step, rate in enumerate(rates()):
        for name, parameter in parameters.items():
            parameter.grad = tensors[f"gradient.{step}.{name}"].to(parameter.dtype) * SCALE
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        optimizer.step()
        if step in WRITTEN:
            found |= {f"{step}/{name}": parameter.detach().float().clone() for name, parameter in parameters.items()}
    return found


def lambda_of(make, rate):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=rate)
    scheduler = make(optimizer)

    def rates_of(steps):
        all_rates = []
        for _ in range(steps):
            all_rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return all_rates

    return rates_of


def schedules():
    """Plugin, options, steps, warm-up share, reference from an optimizer, the steps and those of the warm-up."""
    t = transformers
    for steps, warmup in ((100, 0.0), (100, 0.1), (97, 0.07), (10, 0.5), (7, 1.0), (1, 0.0)):
        yield "constant", {}, steps, warmup, lambda o, n, w: t.get_constant_schedule_with_warmup(o, w)
        yield "linear", {}, steps, warmup, lambda o, n, w: t.get_linear_schedule_with_warmup(o, w, n)
        yield "cosine", {}, steps, warmup, lambda o, n, w: t.get_cosine_schedule_with_warmup(o, w, n)
        yield "cosine", {"minimum": 0.1}, steps, warmup, lambda o, n, w: t.get_cosine_with_min_lr_schedule_with_warmup(o, w, n, min_lr_rate=0.1)
        for restarts in (1, 3):
            yield "cosine", {"restarts": restarts}, steps, warmup, lambda o, n, w, r=restarts: t.get_cosine_with_hard_restarts_schedule_with_warmup(o, w, n, num_cycles=r + 1)
        for shape in ("cosine", "linear", "1-sqrt"):
            for decay, minimum in ((0.1, 0.0), (0.25, 0.1), (1.0, 0.05), (0.0, 0.0)):
                yield ("warmup_stable_decay", {"shape": shape, "decay": decay, "minimum": minimum}, steps, warmup,
                       lambda o, n, w, s=shape, d=decay, m=minimum: t.get_wsd_schedule(o, w, math.ceil(d * max(1, n - w)), num_training_steps=n, decay_type=s, min_lr_ratio=m))
        yield "inverse_sqrt", {}, steps, warmup, lambda o, n, w: t.get_inverse_sqrt_schedule(o, w)
        yield "inverse_sqrt", {"timescale": 30}, steps, warmup, lambda o, n, w: t.get_inverse_sqrt_schedule(o, w, timescale=30)


def compare_optimizers(tensors, ours):
    covered = set()
    for name, plugin, options, decay, make in cases():
        covered.add(plugin)
        theirs = reference(tensors, name, decay, make)
        unit = 2**-9 if dtype_of(name) == "bfloat16" else 2**-24  # half of one in the last place
        moved, worst = {}, 0.0
        for key, expected in theirs.items():
            found, start = ours[f"{name}/{key}"], tensors[key.split("/")[1]]
            step = (expected - start).abs().max().item()
            difference = (found - expected).abs().max().item()
            moved[key] = step
            largest = expected.abs().max().item()
            worst = max(worst, difference / largest)
            # What 25 sums round, and a little of the way from the start: more where Muon's iteration rounds to 8 bits.
            allowed = (1e-2 if name.startswith("muon, bfloat16") else 2e-5) * step + STEPS * unit * largest
            check(difference <= allowed, f"{name}: {key} differs by {difference:.1e} after a way of {step:.1e}")
        check(min(moved.values()) > 0, f"{name}: every parameter moves: {moved}")
        print(f"{name}: {STEPS} updates differ by {worst:.1e} of the largest number at most", flush=True)
    return covered


def compare_schedules(ours):
    covered = set()
    for (plugin, options, steps, warmup, make), found in zip(schedules(), ours, strict=True):
        covered.add(plugin)
        peak = 3e-4
        theirs = lambda_of(lambda o: make(o, steps, math.ceil(warmup * steps)), peak)(steps)
        worst = max(abs(a - b) for a, b in zip(found, theirs, strict=True))
        check(worst <= 1e-12 * peak, f"{plugin} {options}, {steps} steps, warm-up {warmup}: differs by {worst:.1e}: {found} {theirs}")
    print(f"{len(ours)} schedules equal those of transformers {transformers.__version__} in every step", flush=True)
    return covered


def registered(build, kind):
    said = subprocess.run([build / "attune", "list", kind], capture_output=True, text=True, check=True).stdout
    return {line.split()[1] for line in said.splitlines()[1:]}


def main():
    program, build = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    torch.set_num_threads(2)
    place = Workplace(build / "tests" / "optimizers_beside_references")
    tensors = drawn()
    save_file(tensors, place / "input.safetensors")
    request = {"plugins": str(build / "plugins"), "input": str(place / "input.safetensors"), "output": str(place.folder),
               "optimizers": [{"name": name, "plugin": plugin, "options": options, "weight_decay": decay, "groups": groups_of(name), "learning_rates": rates(), "gradient_scale": SCALE,
                               "written": WRITTEN, "dtype": dtype_of(name)} for name, plugin, options, decay, _ in cases()],
               "schedules": [{"plugin": plugin, "options": options, "steps": steps, "warmup": warmup, "learning_rate": 3e-4} for plugin, options, steps, warmup, _ in schedules()]}
    (place / "request.json").write_text(json.dumps(request))
    place.run(program, place / "request.json", timeout=300)
    optimizers = compare_optimizers(tensors, load_file(place / "parameters.safetensors"))
    check(optimizers == registered(build, "optimizer"), f"every optimizer is compared, not {optimizers} alone")
    compared = compare_schedules(json.loads((place / "rates.json").read_text()))
    check(compared == registered(build, "schedule"), f"every schedule is compared, not {compared} alone")


if __name__ == "__main__":
    main()
