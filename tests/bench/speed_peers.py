"""One run of a Python peer in a process of its own: transformers, with peft where the case says LoRA, on the very samples of an Attune data file.

    speed_peers.py CASE PARAMETERS        prints one JSON line; CASE: prepare, dense, sft, classify, forward, generate or gauge

PARAMETERS is a JSON object: model, data (HDF5), adapter, method ("lora" or "full"), variant, steps, batch, rate, scratch. Samples are taken in the order
of the file, AdamW without weight decay, a constant learning rate, clipping at 1. The script imports late, so that start-up can be measured.
"""
import json
import os
import sys
import time

STARTED = float(os.environ.get("BENCH_STARTED") or time.time())
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def peak_mib():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024


class Meter:
    """The end of each step, and the tokens or samples it had that are no padding."""

    def __init__(self, count_samples=False):
        self.begin, self.ends, self.counts, self.pending, self.count_samples = None, [], [], 0, count_samples

    def count(self, inputs):
        if self.begin is None:
            self.begin = time.time()
        mask = inputs.get("attention_mask")
        self.pending += inputs["input_ids"].shape[0] if self.count_samples else int(mask.sum()) if mask is not None else inputs["input_ids"].numel()

    def step_done(self):
        self.ends.append(time.time())
        self.counts.append(self.pending)
        self.pending = 0

    def result(self, losses):
        rate = sum(self.counts[1:]) / (self.ends[-1] - self.ends[0]) if len(self.ends) > 1 else 0
        return {"rate": rate, "losses": losses, "start": self.begin - STARTED, "peak_mib": peak_mib(),
                "step_seconds": [b - a for a, b in zip(self.ends, self.ends[1:])], "counts": self.counts}


def rows_of(path, *columns, split="train"):
    import h5py
    import torch
    with h5py.File(path) as file:
        train = file[split]
        whole = {name: train[name][:] for name in columns}
        offsets = {name: train[f"{name}.offsets"][:] for name in columns if f"{name}.offsets" in train}
    one = offsets[columns[0]]
    for row in range(len(one) - 1):
        yield tuple(torch.tensor(whole[name][offsets[name][row] : offsets[name][row + 1]].astype("int64")) if name in offsets else int(whole[name][row]) for name in columns)


def language_model(p):
    import torch
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(p["model"], dtype=torch.float32, attn_implementation="sdpa")
    if p["method"] == "full":
        return model
    from peft import PeftModel
    return PeftModel.from_pretrained(model, p["adapter"], is_trainable=True)


def prepare(p):
    """A LoRA adapter as peft initialises it, and MiniLM with a new head of two classes: both sides start from these."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(p["model"], dtype=torch.float32)
    get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=LAYERS, task_type="CAUSAL_LM")).save_pretrained(p["adapter"])
    encoder = AutoModel.from_pretrained(p["encoder"], dtype=torch.float32, add_pooling_layer=False)
    config = AutoConfig.from_pretrained(p["encoder"], num_labels=2)
    os.makedirs(p["classifier"], exist_ok=True)
    config.save_pretrained(p["classifier"])
    head = torch.nn.Linear(config.hidden_size, 2)
    torch.nn.init.normal_(head.weight, 0, 0.02)
    tensors = {f"bert.{name}": tensor for name, tensor in encoder.state_dict().items()}
    save_file(tensors | {"classifier.weight": head.weight.data, "classifier.bias": torch.zeros(2)}, os.path.join(p["classifier"], "model.safetensors"))
    return {}


def dense(p):
    """A bare loop: no Trainer."""
    import torch
    meter = Meter()
    model = language_model(p).train()
    trained = [w for w in model.parameters() if w.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=p["rate"], weight_decay=0, fused=True)
    samples, losses = rows_of(p["data"], "tokens"), []
    for _ in range(p["steps"]):
        tokens = torch.stack([next(samples)[0] for _ in range(p["batch"])])
        meter.count({"input_ids": tokens})
        with torch.autocast("cpu", torch.bfloat16, enabled=p["variant"] == "autocast"):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        meter.step_done()
    return meter.result(losses)


def trainer_run(p, model, data, collator, meter):
    from torch.utils.data import SequentialSampler
    from transformers import Trainer, TrainerCallback, TrainingArguments
    in_file_order = p["variant"] != "grouped"

    class Metered(Trainer):
        def training_step(self, model, inputs, *args, **kwargs):
            meter.count(inputs)
            return super().training_step(model, inputs, *args, **kwargs)

        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(self.train_dataset) if in_file_order else super()._get_train_sampler(dataset)

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            meter.step_done()

    arguments = TrainingArguments(output_dir=p["scratch"], per_device_train_batch_size=p["batch"], learning_rate=p["rate"], max_steps=p["steps"], lr_scheduler_type="constant",
                                  weight_decay=0, max_grad_norm=1.0, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, seed=0,
                                  **({} if in_file_order else {"train_sampling_strategy": "group_by_length"}))
    trainer = Metered(model=model, args=arguments, train_dataset=data, data_collator=collator, callbacks=[Clock()])
    trainer.train()
    return meter.result([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])


def sft(p):
    import torch
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, DataCollatorWithFlattening
    data = [{"input_ids": tokens.tolist(), "labels": torch.where(mask == 1, tokens, -100).tolist()} for tokens, mask in rows_of(p["data"], "tokens", "loss_mask")]
    flat = p["variant"] == "flat"
    collator = DataCollatorWithFlattening() if flat else DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(p["model"]), padding=True)
    return trainer_run(p, language_model(p), data, collator, Meter())


def classify(p):
    """Mean of the token vectors and one linear layer; dropout off, as both sides are to have the same losses."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer, DataCollatorWithPadding

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = AutoModel.from_pretrained(p["model"], dtype=torch.float32, add_pooling_layer=False, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
            self.head = torch.nn.Linear(self.encoder.config.hidden_size, 2)
            saved = load_file(os.path.join(p["model"], "model.safetensors"))
            self.head.load_state_dict({"weight": saved["classifier.weight"], "bias": saved["classifier.bias"]})
            if p["method"] == "probe":
                self.encoder.requires_grad_(False)

        def forward(self, input_ids, attention_mask, labels=None):
            h = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(h.dtype)
            logits = self.head((h * mask).sum(1) / mask.sum(1))
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    data = [{"input_ids": tokens.tolist(), "attention_mask": [1] * len(tokens), "label": label} for tokens, label in rows_of(p["data"], "tokens", "label")]
    collator = DataCollatorWithPadding(AutoTokenizer.from_pretrained(p["tokenizer"]))
    return trainer_run(p, Classifier(), data, collator, Meter(count_samples=True))


def forward(p):
    """Evaluation of the base: padded batches in the order of the file."""
    import itertools
    import torch
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq
    model, rows = language_model(p).eval(), rows_of(p["data"], "tokens", "loss_mask", split="validation")
    data = [{"input_ids": tokens.tolist(), "labels": torch.where(mask == 1, tokens, -100).tolist()} for tokens, mask in itertools.islice(rows, p["samples"])]
    collator = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(p["model"]), padding=True)
    tokens, loss, targets = 0, 0.0, 0
    with torch.no_grad(), model.disable_adapter():
        model(**collator(data[:1]))  # what is set up once
        begin = time.time()
        for first in range(0, len(data), p["batch"]):
            batch = collator(data[first : first + p["batch"]])
            count = int((batch["labels"][:, 1:] != -100).sum())
            loss += model(**batch).loss.item() * count
            targets += count
            tokens += int(batch["attention_mask"].sum())
    return {"rate": tokens / (time.time() - begin), "loss": loss / targets}


def generate(p):
    """Greedy answers to prompts, padded on the left."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(p["model"], padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(p["model"], dtype=torch.float32).eval()
    with open(p["prompts"]) as file:
        prompts = [json.loads(line)["prompt"] for line in file]
    end = model.config.eos_token_id
    answers, tokens = [], 0
    with torch.no_grad():
        model.generate(**tokenizer(prompts[:1], return_tensors="pt"), max_new_tokens=2, do_sample=False, pad_token_id=tokenizer.pad_token_id)  # what is set up once
        begin = time.time()
        for first in range(0, len(prompts), p["batch"]):
            asked = tokenizer(prompts[first : first + p["batch"]], return_tensors="pt", padding=True)
            made = model.generate(**asked, max_new_tokens=p["tokens"], do_sample=False, pad_token_id=tokenizer.pad_token_id)[:, asked["input_ids"].shape[1] :]
            for row in made.tolist():
                row = row[: row.index(end)] if end in row else row
                tokens += len(row)
                answers.append(tokenizer.decode(row))
    return {"rate": tokens / (time.time() - begin), "answers": answers}


def gauge(p):
    """GFLOP/s of a matrix product of the size that occurs: tells a slow moment of the machine from a slow program."""
    import torch
    a, b, best = torch.randn(1024, 576), torch.randn(1536, 576), 0
    for _ in range(5):
        begin = time.time()
        for _ in range(20):
            torch.nn.functional.linear(a, b)
        best = max(best, 20 * 2 * 1024 * 576 * 1536 / (time.time() - begin) / 1e9)
    return {"gflops": best, "threads": torch.get_num_threads(), "torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}


if __name__ == "__main__":
    print(json.dumps({"prepare": prepare, "dense": dense, "sft": sft, "classify": classify, "forward": forward, "generate": generate, "gauge": gauge}[sys.argv[1]](json.loads(sys.argv[2]))))
