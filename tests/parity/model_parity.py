"""Models and adapters computed here equal those of transformers and peft.

Usage: model_parity.py CASE MODEL_PARITY PLUGINS_FOLDER MODELS_FOLDER
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, mse_loss, normalize
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForSequenceClassification, AutoModelForTokenClassification

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugins/models/efficientnet"))  # convert.py
IGNORED = -100
LOGITS, LOSS, GRADIENTS = 1e-4, 1e-5, 1e-3
REORDERED = 3e-4  # our own logits, summed in another order
LORA = {"plugin": "lora", "rank": 4, "alpha": 8.0}


class Runner:
    """Runs the C++ side on one model."""

    def __init__(self, program, plugins):
        self.program, self.plugins, self.folder = program, plugins, Path(tempfile.mkdtemp(dir=SCRATCH))

    def __call__(self, **request):
        output = Path(tempfile.mkdtemp(dir=self.folder))
        path = output / "request.json"
        path.write_text(json.dumps({"plugins": self.plugins, "output": str(output), "strategy": {"plugin": "full"}, **request}))
        subprocess.run([self.program, str(path)], check=True)
        return load_file(output / "results.safetensors"), output


def close(ours, theirs, tolerance, what):
    assert ours.shape == theirs.shape, f"{what}: {list(ours.shape)}, not {list(theirs.shape)}"
    difference = (ours.double() - theirs.double()).abs().max().item()
    assert difference <= tolerance, f"{what} differs by {difference}"
    print(f"{what}: differs by {difference:.1e}")


def close_gradients(results, theirs):
    gradients = {name: parameter.grad.double() for name, parameter in theirs.named_parameters() if parameter.grad is not None}
    # Some gradients are zero but for rounding (a key's bias shifts all scores of a query alike): they are held against the largest.
    floor = 1e-5 * max(gradient.norm() for gradient in gradients.values())
    worst = 0.0
    for name, gradient in gradients.items():
        own = "gradient " + name if "gradient " + name in results else f"gradient {theirs.base_model_prefix}.{name}"  # theirs is a bare encoder
        relative = (results[own].double() - gradient).norm() / gradient.norm().clamp_min(floor)
        assert relative <= GRADIENTS, f"gradient of {name} differs by {relative} of its norm"
        worst = max(worst, relative.item())
    print(f"{len(gradients)} gradients: differ by {worst:.1e} of their norm")


def class_loss(logits, targets):
    return cross_entropy(logits, torch.tensor(targets), ignore_index=IGNORED, reduction="sum")


# A reference gives the logits of each sample alone, end to end, and the summed loss, with gradients.


def row_reference(model, samples, targets):
    """A row for each token: decoders, classifiers of tokens."""
    logits = torch.cat([model(torch.tensor([ids])).logits[0] for ids in samples])
    return logits, class_loss(logits, targets)


def sample_reference(model, samples, targets):
    """A row for each sample."""
    logits = torch.cat([model(torch.tensor([ids])).logits for ids in samples])
    return logits, class_loss(logits, targets)


def value_reference(model, samples, targets):
    values = torch.cat([model(torch.tensor([ids])).logits for ids in samples])
    return values, mse_loss(values[:, 0], torch.tensor(targets), reduction="sum")


def pooled_reference(pool):
    """Of a bare encoder: what stands for a sample, with length 1. The loss is any that has gradients."""

    def reference(model, samples, targets):
        pooled = normalize(torch.cat([pool(model(torch.tensor([ids])).last_hidden_state) for ids in samples]))
        return pooled, class_loss(pooled, targets)

    return reference


def picture_reference(scaled):
    """scaled: makes the model's input of pixels."""

    def reference(model, pixels, targets):
        logits = torch.cat([model(pixel_values=scaled(one[None])).logits for one in pixels])
        return logits, class_loss(logits, targets)

    return reference


def shifted(samples, masked):
    """Next-token targets; the first `masked` of each sample and the last row are not trained on."""
    return [t for ids in samples for t in [IGNORED] * masked + ids[1 + masked :] + [IGNORED]]


def inputs(samples):
    """Token ids as they are; pictures through a file."""
    if not isinstance(samples, torch.Tensor):
        return {"samples": samples}
    path = Path(tempfile.mkdtemp(dir=SCRATCH)) / "pixels.safetensors"
    save_file({"pixels": samples}, path)
    return {"pixels": str(path)}


def compare(run, reference, model, request, samples, targets, auto):
    """Full fine-tuning: logits, loss, gradients, that samples do not see each other, and that transformers reads what is exported."""
    results, output = run(targets=targets, **inputs(samples), **request)
    logits, loss = reference(model, samples, targets)
    loss.backward()
    count = sum(target != IGNORED for target in targets)
    close(results["logits"], logits.detach(), LOGITS, "logits")
    close(results["alone"], results["logits"], REORDERED, "samples alone")
    close(results["loss"] / count, loss.detach() / count, LOSS, "loss")
    right = 0 if isinstance(targets[0], float) else (logits.argmax(-1) == torch.tensor(targets)).sum().item()
    assert results["counts"].tolist() == [count, right], (results["counts"], count, right)
    close_gradients(results, model)
    if auto:
        again, report = auto.from_pretrained(output, output_loading_info=True, attn_implementation="eager")
        # A pooler that nothing uses; a counter that only momentum = None reads.
        explained = ("pooler.", "num_batches_tracked")
        unexplained = [name for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in report[kind] if not any(e in name for e in explained)]
        assert not unexplained, report
        close(reference(again.eval(), samples, targets)[0].detach(), logits.detach(), LOGITS, f"logits of the exported folder in {auto.__name__}")
    return results, output


def compare_lora(run, reference, model, request, samples, targets, options={}):
    """Our random adapter, read by PEFT on the same base, gives the same logits; folded in, too."""
    model.zero_grad()
    results, output = run(targets=targets, strategy={**LORA, **options}, randomise=True, **inputs(samples), **request)
    base, _ = reference(model, samples, targets)
    adapted = PeftModel.from_pretrained(model, output / "adapter").eval()
    logits, _ = reference(adapted, samples, targets)
    assert (logits - base).abs().max() > 0.01, "the adapter changes nothing"
    close(results["logits"], logits.detach(), LOGITS, f"logits with a PEFT adapter {options}")
    close(results["merged"], results["logits"], REORDERED, "merged")
    adapted.unload()


def perturb(model):
    """Norm weights and biases are 1 and 0 at first: mistakes in them would not show."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def save(model, name):
    folder = SCRATCH / name
    model.save_pretrained(folder)
    return str(folder)


def check_decoder(run, model, path, samples, adapters, masked=2):
    """adapters: options of LoRA adapters that PEFT is to read."""
    request = {"model": {"plugin": model.config.model_type, "path": path}}
    targets = shifted(samples, masked)
    prompt = samples[0]
    results, _ = compare(run, row_reference, model, {**request, "prompt": prompt, "max_tokens": 20}, samples, targets, AutoModelForCausalLM)
    theirs = model.generate(torch.tensor([prompt]), max_new_tokens=20, min_new_tokens=20, do_sample=False)[0, len(prompt) :]
    assert results["generated"].tolist() == theirs.tolist(), f"generated {results['generated'].tolist()}, not {theirs.tolist()}"
    print("20 greedy tokens equal")
    for options in adapters:
        compare_lora(run, row_reference, model, request, samples, targets, options)


TINY = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 301, "max_position_embeddings": 128}
NO_SPECIAL = {"eos_token_id": None, "bos_token_id": None, "pad_token_id": None}


def tiny_samples():
    return [torch.randint(3, 301, (n,)).tolist() for n in (7, 19, 4)]


def decoder(family, variants, sizes={}, adapters=({},)):
    """The case of a family: a tiny model with random weights for each variant of its config.json."""

    def case(run, _models):
        for name, options in variants.items():
            print(f"-- {name}")
            torch.manual_seed(0)
            config = AutoConfig.for_model(family, **{**TINY, **NO_SPECIAL, **sizes, **options})
            model = perturb(AutoModelForCausalLM.from_config(config, attn_implementation="eager"))
            folder = save(model, family + "-" + name)
            if name in IN_FILE:
                model = read_again(folder, IN_FILE[name])
            check_decoder(run, model, folder, tiny_samples(), adapters)

    return case


def read_again(folder, keys):
    """The model as transformers reads it when config.json has these keys."""
    file = Path(folder) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def rope(**scaling):
    return {"num_key_value_heads": 2, "rope_parameters": {"rope_theta": 5000.0, **scaling}}


LLAMA = {
    "grouped": {"num_key_value_heads": 2, "tie_word_embeddings": True, "rope_theta": 5000.0},
    "of both keys rope_scaling": {"num_key_value_heads": 2},
    "of both keys rope_parameters": {"num_key_value_heads": 2},
    "untied": {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True, "head_dim": 24},
    "linear": rope(rope_type="linear", factor=2.5),
    "dynamic": rope(rope_type="dynamic", factor=2.0),
    "llama3": rope(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32),
    "yarn": rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=32),
    "yarn with all its settings": rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=16.0, beta_slow=2.0, mscale=0.7, mscale_all_dim=1.3, truncate=False),
}
PLAIN = {"rope_type": "default", "rope_theta": 5000.0}
IN_FILE = {  # what save_pretrained never writes, and people do
    "of both keys rope_scaling": {"rope_parameters": PLAIN, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "of both keys rope_parameters": {"rope_parameters": {**PLAIN, "rope_type": "linear", "factor": 4.0}, "rope_scaling": {}},
}
MISTRAL = {"window": {"num_key_value_heads": 2, "sliding_window": 5}, "whole": {"num_key_value_heads": 2, "sliding_window": None, "head_dim": 24}}
QWEN2 = {
    "whole": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "window": {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
}
QWEN3 = {
    "whole": {"num_key_value_heads": 2, "head_dim": 24},
    "window": {"num_key_value_heads": 2, "head_dim": 16, "attention_bias": True, "use_sliding_window": True, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
}
GEMMA2 = {
    "capped": {"num_key_value_heads": 2, "head_dim": 24, "sliding_window": 5, "query_pre_attn_scalar": 20, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "uncapped": {"num_key_value_heads": 2, "head_dim": 16, "attn_logit_softcapping": None, "final_logit_softcapping": None},
}
GPT2_SIZES = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "hidden_size": 64, "num_hidden_layers": 2}
GPT2 = {"plain": {}, "scaled by depth": {"scale_attn_by_inverse_layer_idx": True, "n_inner": 96, "activation_function": "gelu", "tie_word_embeddings": False}}


def mean_pooled(h):
    return h.mean(1)


def first_pooled(h):
    return h[:, 0]


def encoder(family, sizes={}, query_and_value=("query", "value")):
    """The case of an encoder with each of its heads."""

    def case(run, _models):
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, **{**TINY, "max_position_embeddings": 64, "num_labels": 3, **sizes})
        samples = tiny_samples()
        check_encoder(run, config, family, samples, query_and_value)

    return case


def check_encoder(run, config, name, samples, query_and_value):
    print("-- classification")
    model = perturb(AutoModelForSequenceClassification.from_config(config))
    targets = [2, 0, IGNORED]
    request = {"model": {"plugin": config.model_type, "pooling": "cls", "path": save(model, name)}}
    compare(run, sample_reference, model, request, samples, targets, AutoModelForSequenceClassification)
    compare_lora(run, sample_reference, model, request, samples, targets, {"targets": list(query_and_value)})

    print("-- regression")
    config.num_labels = 1
    values = perturb(AutoModelForSequenceClassification.from_config(config))
    request = {"model": {"plugin": config.model_type, "pooling": "cls", "path": save(values, name + "-values")}, "labels": ["value"]}
    compare(run, value_reference, values, request, samples, [0.25, -1.5, 2.0], AutoModelForSequenceClassification)

    print("-- token classification")
    config.num_labels = 5
    tagger = perturb(AutoModelForTokenClassification.from_config(config))
    tags = [IGNORED if i % 4 == 3 else i % 5 for i in range(sum(map(len, samples)))]
    request = {"model": {"plugin": config.model_type, "head": "token_classification", "path": save(tagger, name + "-tags")}}
    compare(run, row_reference, tagger, request, samples, tags, AutoModelForTokenClassification)
    compare_lora(run, row_reference, tagger, request, samples, tags, {"targets": list(query_and_value)})

    print("-- embeddings, from files of a bare encoder")
    bare = perturb(AutoModel.from_config(config))
    path = save(bare, name + "-bare")
    for pooling, pool in (("mean", mean_pooled), ("cls", first_pooled)):
        bare.zero_grad()
        request = {"model": {"plugin": config.model_type, "head": "embedding", "pooling": pooling, "path": path}}
        compare(run, pooled_reference(pool), bare, request, samples, [3, 1, 4], AutoModel)

    print("-- a new head on files of a bare encoder")
    results, output = run(model={"plugin": config.model_type, "path": path}, labels=["no", "yes"], samples=samples, targets=[1, 0, 1])
    ours = AutoModelForSequenceClassification.from_pretrained(output).eval()
    close(results["logits"], head_logits(ours, bare, samples), LOGITS, "logits of the mean")
    config = json.loads((output / "config.json").read_text())
    assert config["id2label"] == {"0": "no", "1": "yes"} and config["label2id"] == {"no": 0, "yes": 1}


def head_logits(model, encoder, samples):
    """What the model's head makes of the mean over a sample's tokens."""
    pooled = torch.cat([encoder(torch.tensor([ids])).last_hidden_state.mean(1) for ids in samples])
    if model.config.model_type == "roberta":
        pooled = model.classifier.dense(pooled).tanh()
    if model.config.model_type == "distilbert":
        pooled = model.pre_classifier(pooled).relu()
    return (model.classifier.out_proj if model.config.model_type == "roberta" else model.classifier)(pooled).detach()


def pictures(count, channels, size):
    return torch.randint(256, (count, channels, size, size), dtype=torch.uint8)


def scaled_by(mean, deviation, size=None):
    """Pixels as a model takes them; grey ones three times."""

    def scaled(pixels):
        x = pixels.float() / 255
        if size and x.shape[-1] != size:
            x = torch.nn.functional.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
        return (x - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(deviation).view(1, -1, 1, 1)

    return scaled


def vit(run, _models):
    torch.manual_seed(0)
    config = AutoConfig.for_model("vit", **{**TINY, "image_size": 24, "patch_size": 8, "num_labels": 3})
    model = perturb(AutoModelForImageClassification.from_config(config))
    halves = [0.5, 0.5, 0.5]
    for name, pixels in {"in colour": pictures(3, 3, 24), "grey, of another size": pictures(3, 1, 28)}.items():
        print(f"-- {name}")
        model.zero_grad()
        request = {"model": {"plugin": "vit", "path": save(model, "vit")}}
        reference = picture_reference(scaled_by(halves, halves, 24))
        compare(run, reference, model, request, pixels, [2, 0, IGNORED], AutoModelForImageClassification)
    compare_lora(run, reference, model, request, pixels, [2, 0, IGNORED], {"targets": ["q_proj", "fc2"]})


IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def efficientnet(run, _models):
    sizes = {"width_coefficient": 1.0, "depth_coefficient": 1.2, "kernel_sizes": [3, 5], "in_channels": [32, 16], "out_channels": [16, 24], "strides": [1, 2], "num_block_repeats": [1, 2],
             "expand_ratios": [1, 6], "hidden_dim": 1280, "num_labels": 3}  # fmt: skip
    variants = {"even": {"image_size": 32}, "odd": {"image_size": 30, "depthwise_padding": [2]}}
    for name, options in variants.items():
        print(f"-- {name}")
        torch.manual_seed(0)
        model = perturb(AutoModelForImageClassification.from_config(AutoConfig.for_model("efficientnet", **sizes, **options)))
        pixels = pictures(3, 3, options["image_size"])
        settle(model, scaled_by(*IMAGENET)(pixels))
        request = {"model": {"plugin": "efficientnet", "path": save(model, "efficientnet-" + name)}}
        compare(run, picture_reference(scaled_by(*IMAGENET)), model, request, pixels, [2, 0, IGNORED], AutoModelForImageClassification)


def settle(model, pixels):
    """Running statistics other than 0 and 1, and such that no layer's output vanishes."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = 0.7
    with torch.no_grad():
        model(pixel_values=pixels)
    model.eval()


class Lite(torch.nn.Module):
    """The package's weights in the definition that goes with them, under the names of our file."""

    def __init__(self, folder):
        super().__init__()
        from convert import new_name
        from efficientnet_lite_pytorch import EfficientNet

        self.net, self.name = EfficientNet.from_name("efficientnet-lite0"), new_name
        weights = load_file(folder / "model.safetensors")
        state = {name: weights.get(new_name(name), tensor) for name, tensor in self.net.state_dict().items()}
        self.net.load_state_dict(state)
        self.eval()

    def named_parameters(self, *_):
        return [(self.name(name), parameter) for name, parameter in self.net.named_parameters()]

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.net(pixel_values))


def lite0(run, models):
    folder = models / "efficientnet-lite0"
    torch.manual_seed(0)
    pixels = pictures(2, 3, 224)
    reference = picture_reference(scaled_by([127 / 255] * 3, [128 / 255] * 3))
    # transformers' EfficientNet always squeezes and excites, so it cannot read the folder.
    compare(run, reference, Lite(folder), {"model": {"plugin": "efficientnet", "path": str(folder)}}, pixels, [3, 5], None)


def smollm2(run, models):
    folder, file = models / "smollm2-135m", "SmolLM2-135M-Instruct.Q4_1.gguf"
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    samples = [[504, 3575, 282, 4649, 314], list(range(1000, 1040)), [28, 338, 314, 1343, 327, 260]]
    adapters = {}, {"targets": ["q_proj", "layers.1.mlp.*"], "rslora": True}
    check_decoder(run, model, str(folder / file), samples, adapters, masked=1)


def minilm(run, models):
    torch.manual_seed(0)
    samples = [[101, 1996, 3185, 2001, 6919, 102], [101, *range(2000, 2040), 102], [101, 2023, 102]]
    model = AutoModelForSequenceClassification.from_pretrained(models / "minilm", num_labels=3).eval()
    request = {"model": {"plugin": "bert", "pooling": "cls", "path": save(model, "minilm")}}
    compare(run, sample_reference, model, request, samples, [2, 0, IGNORED], AutoModelForSequenceClassification)
    compare_lora(run, sample_reference, model, request, samples, [2, 0, IGNORED])
    print("-- the package's own files, as sentence embeddings")
    bare = AutoModel.from_pretrained(models / "minilm").eval()
    request = {"model": {"plugin": "bert", "head": "embedding", "path": str(models / "minilm")}}
    compare(run, pooled_reference(mean_pooled), bare, request, samples, [3, 1, 4], AutoModel)


CASES = {
    "llama": decoder("llama", LLAMA, adapters=({}, {"targets": ["q_proj", "layers.1.mlp.*"], "rslora": True})),
    "mistral": decoder("mistral", MISTRAL),
    "qwen2": decoder("qwen2", QWEN2),
    "qwen3": decoder("qwen3", QWEN3),
    "gemma2": decoder("gemma2", GEMMA2),
    "gpt2": decoder("gpt2", GPT2, sizes=GPT2_SIZES, adapters=({}, {"targets": ["c_attn", "h.1.mlp.c_proj"]})),
    "bert": encoder("bert"),
    "roberta": encoder("roberta"),
    "distilbert": encoder("distilbert", sizes={"dim": 64, "hidden_dim": 96, "n_layers": 2, "n_heads": 4}, query_and_value=("q_lin", "v_lin")),
    "vit": vit,
    "efficientnet": efficientnet,
    "smollm2": smollm2,
    "minilm": minilm,
    "lite0": lite0,
}

if __name__ == "__main__":
    case, program, plugins, models = sys.argv[1:]
    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as scratch:
        SCRATCH = Path(scratch)
        CASES[case](Runner(program, plugins), Path(models))
