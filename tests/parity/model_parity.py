"""Models and adapters computed here equal those of transformers and peft.

Usage: model_parity.py CASE MODEL_PARITY PLUGINS_FOLDER MODELS_FOLDER
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BertConfig, BertForSequenceClassification, BertModel, LlamaConfig, LlamaForCausalLM

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
        relative = (results["gradient " + name].double() - gradient).norm() / gradient.norm().clamp_min(floor)
        assert relative <= GRADIENTS, f"gradient of {name} differs by {relative} of its norm"
        worst = max(worst, relative.item())
    print(f"{len(gradients)} gradients: differ by {worst:.1e} of their norm")


def causal_reference(model, samples, targets):
    """Logits of each sample alone, end to end, and the summed loss, with gradients."""
    logits = torch.cat([model(torch.tensor([ids])).logits[0] for ids in samples])
    return logits, torch.nn.functional.cross_entropy(logits, torch.tensor(targets), ignore_index=IGNORED, reduction="sum")


def classifier_reference(model, samples, targets):
    logits = torch.cat([model(torch.tensor([ids])).logits for ids in samples])
    return logits, torch.nn.functional.cross_entropy(logits, torch.tensor(targets), ignore_index=IGNORED, reduction="sum")


def shifted(samples, masked):
    """Next-token targets; the first `masked` of each sample and the last row are not trained on."""
    return [t for ids in samples for t in [IGNORED] * masked + ids[1 + masked :] + [IGNORED]]


def compare(run, reference, model, request, samples, targets):
    """Full fine-tuning: logits, loss, gradients, and that samples do not see each other."""
    results, output = run(samples=samples, targets=targets, **request)
    logits, loss = reference(model, samples, targets)
    loss.backward()
    trained = [target != IGNORED for target in targets]
    close(results["logits"], logits.detach(), LOGITS, "logits")
    close(results["alone"], results["logits"], REORDERED, "samples alone")
    close(results["loss"] / sum(trained), loss.detach() / sum(trained), LOSS, "loss")
    right = (logits.argmax(-1) == torch.tensor(targets)).sum().item()
    assert results["counts"].tolist() == [sum(trained), right], (results["counts"], sum(trained), right)
    close_gradients(results, model)
    return results, output


def compare_lora(run, reference, model, request, samples, targets, options={}):
    """Our random adapter, read by PEFT on the same base, gives the same logits; folded in, too."""
    model.zero_grad()
    results, output = run(samples=samples, targets=targets, strategy={**LORA, **options}, randomise=True, **request)
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


def check_llama(run, model, path, samples, masked=2):
    request = {"model": {"plugin": "llama", "path": path}}
    targets = shifted(samples, masked)
    prompt = samples[0]
    results, _ = compare(run, causal_reference, model, {**request, "prompt": prompt, "max_tokens": 20}, samples, targets)
    theirs = model.generate(torch.tensor([prompt]), max_new_tokens=20, min_new_tokens=20, do_sample=False)[0, len(prompt) :]
    assert results["generated"].tolist() == theirs.tolist(), f"generated {results['generated'].tolist()}, not {theirs.tolist()}"
    print("20 greedy tokens equal")
    compare_lora(run, causal_reference, model, request, samples, targets)
    compare_lora(run, causal_reference, model, request, samples, targets, {"targets": ["q_proj", "layers.1.mlp.*"], "rslora": True})


def tiny_llama(run, _models):
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 301, "max_position_embeddings": 128}
    variants = {
        "grouped": {"num_key_value_heads": 2, "tie_word_embeddings": True},
        "untied": {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True, "head_dim": 24},
    }
    for name, options in variants.items():
        print(f"-- {name}")
        torch.manual_seed(0)
        model = perturb(LlamaForCausalLM(LlamaConfig(**sizes, **options, eos_token_id=None, bos_token_id=None, rope_theta=5000.0)))
        samples = [torch.randint(301, (n,)).tolist() for n in (7, 19, 4)]
        check_llama(run, model, save(model, name), samples)


def tiny_bert(run, _models):
    torch.manual_seed(0)
    config = BertConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=301, max_position_embeddings=64,
                        num_labels=3)
    check_bert(run, perturb(BertForSequenceClassification(config)), "tiny", [torch.randint(301, (n,)).tolist() for n in (7, 19, 4)])


def check_bert(run, model, name, samples):
    targets = [2, 0, IGNORED]
    request = {"model": {"plugin": "bert", "pooling": "cls", "path": save(model, name)}}
    _, output = compare(run, classifier_reference, model, request, samples, targets)
    again, report = BertForSequenceClassification.from_pretrained(output, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    compare_lora(run, classifier_reference, model, request, samples, targets)
    compare_lora(run, classifier_reference, model, request, samples, targets, {"targets": ["query", "value"]})

    print("-- mean pooling, files of a bare encoder")
    path = save(model.bert, name + "-encoder")
    labels = ["no", "yes"]
    results, output = run(model={"plugin": "bert", "path": path}, labels=labels, samples=samples, targets=[1, 0, 1])
    ours = load_file(output / "model.safetensors")
    pooled = torch.cat([model.bert(torch.tensor([ids])).last_hidden_state.mean(1) for ids in samples])
    close(results["logits"], pooled.detach() @ ours["classifier.weight"].T, LOGITS, "logits")
    config = json.loads((output / "config.json").read_text())
    assert config["id2label"] == {"0": "no", "1": "yes"} and config["label2id"] == {"no": 0, "yes": 1}


def smollm2(run, models):
    folder, file = models / "smollm2-135m", "SmolLM2-135M-Instruct.Q4_1.gguf"
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    samples = [[504, 3575, 282, 4649, 314], list(range(1000, 1040)), [28, 338, 314, 1343, 327, 260]]
    check_llama(run, model, str(folder / file), samples, masked=1)


def minilm(run, models):
    torch.manual_seed(0)
    model = BertForSequenceClassification.from_pretrained(models / "minilm", num_labels=3).eval()
    samples = [[101, 1996, 3185, 2001, 6919, 102], [101, *range(2000, 2040), 102], [101, 2023, 102]]
    check_bert(run, model, "minilm", samples)
    print("-- the package's own files")
    results, output = run(model={"plugin": "bert", "path": str(models / "minilm")}, labels=["no", "yes"], samples=samples, targets=[1, 0, 1])
    encoder = BertModel.from_pretrained(models / "minilm").eval()
    pooled = torch.cat([encoder(torch.tensor([ids])).last_hidden_state.mean(1) for ids in samples])
    close(results["logits"], pooled.detach() @ load_file(output / "model.safetensors")["classifier.weight"].T, LOGITS, "logits")


if __name__ == "__main__":
    case, program, plugins, models = sys.argv[1:]
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as scratch:
        SCRATCH = Path(scratch)
        {"tiny_llama": tiny_llama, "tiny_bert": tiny_bert, "smollm2": smollm2, "minilm": minilm}[case](Runner(program, plugins), Path(models))
