"""The whole program on simulated devices, whose memory the host cannot read and whose copies come late: what it computes is what the CPU computes.

    devices_test.py BUILD_FOLDER [--long] [TEST...]

--long: every strategy on every kind of model on 1, 2 and 4 ranks, not on one of these. TEST: these functions alone.
"""
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from matrix import combinations, is_served, make_inputs, write_run
from tiny import Workplace, bytes_in, check, environment, make_small_model, over_ranks, paced

build = Path(sys.argv[1]).resolve()
source = Path(__file__).resolve().parent.parent.parent
program = build / "attune"
place = Workplace(build / "tests" / "devices")
plugin = build / "tests/simdev/sim.so"
SIM = (f'plugins=["{plugin}"]', "parallel.device=sim")


def losses(name):
    """Of every step and every evaluation."""
    lines = (place / "runs" / name / "metrics.jsonl").read_text().splitlines()
    events = map(json.loads, lines)
    return [value for event in events for value in (event.get("loss"), event.get("metrics", {}).get("loss")) if isinstance(value, float)]


def are_close(ours, theirs, what, by=1e-6):
    check(len(ours) == len(theirs) > 0, f"{what}: as many losses: {ours} {theirs}")
    for a, b in zip(ours, theirs):
        check(abs(a - b) <= by * max(1, abs(b)), f"{what}: {ours} on the device, {theirs} on the CPU")


def counting(run_file):
    """The same run file with the callback that counts what each step costs the device."""
    counted = f"counted-{run_file}"
    (place / counted).write_text((place / run_file).read_text() + '[[callback]]\nplugin = "device_counts"\n')
    return counted


def every_step_waits_once(run, ranks):
    for rank in range(ranks):
        for line in (place / "runs" / run / f"device.{rank}.jsonl").read_text().splitlines():
            step = json.loads(line)
            check(sum(step["synchronisations"].values()) <= 1, f"{run}: the host waits once in a step: {step['step']}, {step['synchronisations']}")


def compare(run_file, name, *overrides, ranks=1, by=1e-6):
    """A run on the CPU and one on devices. Returns the names of the runs."""
    names = f"{name}-cpu", f"{name}-sim"
    place.run(*over_ranks(ranks, program, "train", run_file, f"name={names[0]}", "parallel.device=cpu", *overrides))
    place.run(*over_ranks(ranks, program, "train", counting(run_file), f"name={names[1]}", *SIM, *overrides))
    are_close(losses(names[1]), losses(names[0]), f"{name} on {ranks} ranks", by)
    return names


def tensors(folder):
    from safetensors.torch import load_file
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def result(run):
    return next(folder for kind in ("adapter", "model") if (folder := place / "runs" / run / kind).exists())


def are_the_same_results(ours, theirs):
    mine, other = tensors(ours), tensors(theirs)
    check(mine.keys() == other.keys() and mine, f"{ours} and {theirs} have the same tensors")
    for name, tensor in mine.items():
        if name.endswith("key.bias"):  # softmax takes it out again: its gradient is rounding, of which AdamW makes whole steps
            continue
        off = (tensor.float() - other[name].float()).abs()
        check(off.mean() <= 1e-6 and off.max() <= 5e-3, f"{name} of {ours}: {off.max()} off at most, {off.mean()} on average")


def every_strategy_on_every_kind_of_model():
    served = [each for each in combinations() if is_served(*each)]
    for index, (strategy, family) in enumerate(served):
        name = write_run(place, strategy, family)
        for ranks in (1, 2, 4) if "--long" in sys.argv else ((1, 2, 4)[index % 3],):
            shard = ("none", "optimizer", "gradients")[index // 3 % 3]
            on_cpu, on_device = compare(f"{name}.toml", f"{name}-{ranks}", f"parallel.shard={shard}", ranks=ranks)
            every_step_waits_once(on_device, ranks)
            are_the_same_results(result(on_device), result(on_cpu))
            resumed = f"{on_device}-again"
            shutil.copytree(place / "runs" / on_device, place / "runs" / resumed)
            shutil.rmtree(place / "runs" / resumed / "checkpoints/step-000004")
            place.run(*over_ranks(ranks, program, "train", counting(f"{name}.toml"), f"name={resumed}", *SIM, f"parallel.shard={shard}", "--resume"))
            check(tensors(result(resumed)).keys() == tensors(result(on_device)).keys(), f"{resumed} has a result")
            check(all(tensor.equal(tensors(result(on_device))[key]) for key, tensor in tensors(result(resumed)).items()), f"{resumed}: resumed at step 2, the same bits")
        print(f"  {name}", flush=True)


FURTHER = {
    "mistral": ("llama", dict(sliding_window=8)), "qwen2": ("llama", {}), "qwen3": ("llama", dict(head_dim=8)),
    "gemma2": ("llama", dict(head_dim=8, sliding_window=8, query_pre_attn_scalar=8)),
    "roberta": ("bert", dict(pad_token_id=1)), "distilbert": ("bert", {}), "vit": ("vit", {}),
}


def every_architecture():
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128)
    for family, (like, more) in FURTHER.items():
        folder = place / family
        if family == "vit":
            make_small_model(folder, "vit")
        elif like == "llama":
            AutoModelForCausalLM.from_config(AutoConfig.for_model(family, vocab_size=257, **(sizes | more))).save_pretrained(folder)
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(place / "model" / file, folder)
        else:
            own = dict(dim=32, hidden_dim=64, n_layers=2, n_heads=4, max_position_embeddings=96) if family == "distilbert" else sizes
            AutoModel.from_config(AutoConfig.for_model(family, vocab_size=64, **(own | more))).save_pretrained(folder)
            shutil.copy(place / "classifier/tokenizer.json", folder)
            (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        run = {"llama": "full-llama", "bert": "full-bert", "vit": "full-efficientnet"}[like]
        overrides = [f"model.plugin={family}", f"model.path={family}"]
        if family == "vit":
            overrides.append("dataset.size=32")
        else:
            place.run(program, "prepare", f"{'instruction' if like == 'llama' else 'classification'}.toml", f"tokenizer={family}", f"output={family}.h5")
            overrides.append(f"dataset.path={family}.h5")
        compare(f"{run}.toml", family, *overrides)
        print(f"  {family}", flush=True)


def every_optimizer_and_schedule():
    for optimizer in ("adafactor", "lion", "muon", "sgd"):
        for ranks in (1, 2):
            on_device = compare("full-llama.toml", f"{optimizer}-{ranks}", f"optimizer.plugin={optimizer}", ranks=ranks)[1]
            every_step_waits_once(on_device, ranks)
    on_device = compare("full-llama.toml", "adafactor-scaled", "optimizer.plugin=adafactor", "optimizer.scale_parameter=true")[1]
    every_step_waits_once(on_device, 1)
    for schedule in ("constant", "inverse_sqrt", "linear", "warmup_stable_decay"):
        compare("lora-llama.toml", schedule, f"schedule.plugin={schedule}")


def every_kind_of_data():
    (place / "corpus.jsonl").write_text("".join(json.dumps({"text": f"The number {i} comes after {i - 1}. " * (1 + i % 3)}) + "\n" for i in range(40)))
    (place / "pairs.jsonl").write_text("".join(json.dumps({"first": f"after {'abcdefghij'[i % 10]}", "second": f"comes {'bcdefghijk'[i % 10]}"}) + "\n" for i in range(40)))
    (place / "tags.jsonl").write_text("".join(json.dumps({"words": ["a", "bad", "day"][: 1 + i % 3], "tags": ["no", "yes", "no"][: 1 + i % 3]}) + "\n" for i in range(40)))
    for kind, tokenizer in (("corpus", "model"), ("pairs", "classifier"), ("token_classification", "classifier")):
        file = "tags" if kind == "token_classification" else kind
        (place / f"{kind}.toml").write_text(f'name = "{kind}"\nkind = "{kind}"\nlicence = "CC0-1.0"\noutput = "{kind}.h5"\ntokenizer = "{tokenizer}"\n'
                                            f'[[source]]\npath = "{file}.jsonl"\n[clean]\ndeduplicate = "none"\n[split]\nvalidation = 0.2\n')
        place.run(program, "prepare", f"{kind}.toml")
    data = lambda kind: (f"dataset.plugin={kind}", f"dataset.path={kind}.h5")
    compare("lora-llama.toml", "corpus", *data("corpus"))
    compare("full-bert.toml", "tags", *data("token_classification"), "model.head=token_classification")
    text = (place / "full-bert.toml").read_text()
    (place / "pairs-run.toml").write_text(text.replace('"classification"', '"pairs"').replace("classification.h5", "pairs.h5") + '[[strategy]]\nplugin = "contrastive"\n')
    compare("pairs-run.toml", "pairs", "model.head=embedding", ranks=2)


def options_that_change_how_it_computes():
    for run, name, *overrides in (
        ("lora", "recompute", "train.recompute=true"), ("lora", "tokens", "train.micro_tokens=64", "train.group_lengths=true"), ("lora", "unstaged", "checkpoint.staged=false"),
        ("lora", "dropout", "strategy.lora.dropout=0.1"), ("freeze", "cache", "train.prefix_cache=float32", "train.steps=12"),
    ):
        compare(f"{run}-llama.toml", name, *overrides)
    # Parameters that several recomputed blocks use, or a block and the loss, get their gradients piece by piece.
    for run in ("prefix-llama", "prefix-projection-llama", "l2sp-llama", "ewc-bert", "distill-bert", "lora-llama"):
        whole = compare(f"{run}.toml", f"{run}-kept")[0]
        for name in compare(f"{run}.toml", f"{run}-recomputed", "train.recompute=true", ranks=2):
            are_close(losses(name), losses(whole), f"{name} on two ranks, and without recomputing on one", 1e-5)
    for name, override in (("narrow", "model.dtype=bfloat16"), ("mixed", "train.precision=bfloat16")):
        compare("lora-llama.toml", name, override, by=2e-3)
        compare("full-llama.toml", f"full-{name}", override, by=5e-3)
    (place / "stops.toml").write_text((place / "full-llama.toml").read_text().replace("steps = 4", "steps = 40").replace("[evaluate]", "[evaluate]\nevery = 2")
                                      + '[[callback]]\nplugin = "early_stopping"\npatience = 1\n')
    place.run(*over_ranks(2, program, "train", "stops.toml", "name=stops", "train.learning_rate=0.1", *SIM))
    check(place.steps_done("stops") < 40, "a callback ends a run on devices")
    for run, memory, least in (("lora", 10**9, 8), ("lora", 2_500_000, 1), ("full", 10**9, 8), ("full", 3_000_000, 2)):
        name = f"fits-{run}-{memory}"
        said = place.run("env", f"ATTUNE_SIM_MEMORY={memory}", program, "train", f"{run}-llama.toml", f"name={name}", *SIM, 'train.micro_batch="auto"')
        fits = int(said.split("train.micro_batch: ")[1].split()[0])
        held = json.loads((place / "runs" / name / "record.json").read_text())["placement"][0]["device_memory"]
        check(least <= fits <= 8 and (fits == 8 or held > memory / 3), f"as many samples as fit into the device's memory: {name}: {fits}, {held} held")
    of_one = compare("full-llama.toml", "exact-1", "parallel.reproducible=true")[1]
    for ranks in (2, 4):
        name = compare("full-llama.toml", f"exact-{ranks}", "parallel.reproducible=true", ranks=ranks)[1]
        check((result(name) / "model.safetensors").read_bytes() == (result(of_one) / "model.safetensors").read_bytes(), f"{ranks} devices give the bits of one")
        for stage in ("optimizer", "gradients"):
            sharded = f"exact-{ranks}-{stage}"
            place.run(*over_ranks(ranks, program, "train", counting("full-llama.toml"), f"name={sharded}", *SIM, "parallel.reproducible=true", f"parallel.shard={stage}"))
            check((result(sharded) / "model.safetensors").read_bytes() == (result(of_one) / "model.safetensors").read_bytes(), f"{ranks} devices that share out the {stage} give the bits of one")


def an_optimizer_on_the_host_is_the_same():
    """parallel.offload changes where the state is, and nothing else; a run goes on with it and without."""
    for run, ranks, *overrides in (("full-llama", 1), ("full-llama", 1, "model.dtype=bfloat16"), ("full-llama", 1, "train.optimizer=adafactor"), ("full-llama", 1, "train.optimizer=muon"),
                                   ("full-efficientnet", 1), ("gradual_unfreezing-llama", 1), ("lora-llama", 2), ("full-llama", 4, "parallel.shard=gradients"),
                                   ("full-llama", 4, "parallel.shard=optimizer", "parallel.replicas=2", "model.dtype=bfloat16")):
        name = "-".join(("offload", run, str(ranks), *overrides)).replace("=", "-")
        held = {}
        for offload in ("none", "optimizer"):
            place.run(*over_ranks(ranks, program, "train", counting(f"{run}.toml"), f"name={name}-{offload}", *SIM, *overrides, f"parallel.offload={offload}"))
            held[offload] = max(rank["device_memory"] for rank in json.loads((place / f"runs/{name}-{offload}/record.json").read_text())["placement"])
        close = [place.events(f"{name}-{offload}", "step_end") for offload in held]
        are_close([step["loss"] for step in close[0]], [step["loss"] for step in close[1]], name)
        are_the_same_results(result(f"{name}-optimizer"), result(f"{name}-none"))
        check(held["optimizer"] < held["none"], f"{name}: less is on the device: {held}")
        shutil.copytree(place / f"runs/{name}-optimizer", place / f"runs/{name}-again")
        shutil.rmtree(place / f"runs/{name}-again/checkpoints/step-000004")
        again = ("train", counting(f"{run}.toml"), f"name={name}-again", *SIM, *overrides, "--resume")
        said = place.run(*over_ranks(ranks, program, *again, "parallel.offload=optimizer"))
        check("resumed from" in said, said)
        check(all(tensor.equal(tensors(result(f"{name}-optimizer"))[key]) for key, tensor in tensors(result(f"{name}-again")).items()), f"{name}: resumed, the same bits")
        shutil.rmtree(place / f"runs/{name}-again/checkpoints/step-000004")
        place.run(*over_ranks(ranks, program, *again, "parallel.offload=none"))
        are_the_same_results(result(f"{name}-again"), result(f"{name}-none"))
    said = place.run(program, "check", "full-llama.toml", "name=none", "parallel.device=cpu", "parallel.offload=optimizer")
    check("parallel.offload has no effect on CPUs" in said, said)


def memory_is_what_check_says():
    """The most that the device held in a run, next to what was planned without it and measured on it."""
    for run, *overrides in (
        ("full-llama",), ("full-bert",), ("full-efficientnet",), ("lora-llama",), ("lora-efficientnet",), ("dpo-llama",), ("prefix-llama",), ("quantize-qlora-llama",), ("ewc-bert",),
        ("full-llama", "parallel.reproducible=true"), ("full-llama", "train.micro_batch=8"), ("lora-llama", "train.recompute=true"), ("lora-llama", "model.dtype=bfloat16"),
        ("lora-dora-llama", "model.dtype=bfloat16"), ("full-llama", "model.dtype=bfloat16"), ("full-llama", "parallel.offload=optimizer"), ("full-llama", "parallel.offload=optimizer", "model.dtype=bfloat16"),
    ):
        name = "memory-" + "-".join((run, *overrides)).replace("=", "-")
        place.run(program, "train", counting(f"{run}.toml"), f"name={name}", *SIM, *overrides)
        rank = json.loads((place / "runs" / name / "record.json").read_text())["placement"][0]
        held = rank["device_memory"]
        check(rank["device"] == "sim:0 Simulated", f"the record says where it ran: {rank}")
        for how in ((), ("--measure",)):
            said = place.run(program, "check", f"{run}.toml", f"name={name}-check", *SIM, *overrides, *how)
            told = bytes_in(said.split("memory per rank")[1])
            check(0.9 < told / held < 1.1, f"{name} held {held} bytes, and check {how} said {told:.0f}: {said}")
    for ranks, run, *overrides in (
        (2, "full-llama"), (4, "full-llama", "train.micro_batch=1"), (2, "full-llama", "parallel.shard=optimizer"), (4, "full-llama", "parallel.shard=gradients"), (4, "full-llama", "parallel.shard=gradients", "parallel.replicas=2"),
        (4, "full-llama", "parallel.shard=optimizer", "train.micro_batch=1"), (4, "full-llama", "parallel.shard=gradients", "train.micro_batch=1"),
        (4, "full-llama", "parallel.shard=gradients", "model.dtype=bfloat16"),
        (4, "lora-llama", "parallel.shard=gradients"), (4, "full-llama", "parallel.shard=gradients", "parallel.offload=optimizer"),
    ):
        name = "memory-" + "-".join((str(ranks), run, *overrides)).replace("=", "-")
        place.run(*over_ranks(ranks, program, "train", counting(f"{run}.toml"), f"name={name}", *SIM, *overrides))
        held = max(rank["device_memory"] for rank in json.loads((place / "runs" / name / "record.json").read_text())["placement"])
        for how in ((), ("--measure",)):
            said = place.run(*over_ranks(ranks, program, "check", f"{run}.toml", f"name={name}-check", *SIM, *overrides, *how))
            told = bytes_in(said.split("memory per rank")[1])
            check(0.9 < told / held < 1.1, f"{name} held {held} bytes, and check {how} said {told:.0f}: {said}")


def reproducible_is_refused_where_it_cannot_be():
    said = place.run("env", "ATTUNE_SIM_UNORDERED=1", program, "train", "full-llama.toml", "name=unordered", *SIM, "parallel.reproducible=true", expect=2)
    check("parallel.reproducible cannot be kept on this device" in said and "sim_rms_norm" in said, f"it is refused by the operator's name: {said}")
    for reproducible, is_unordered in (("true", False), ("false", True)):
        run = f"ordered-{reproducible}"
        place.run(program, "train", counting("full-llama.toml"), f"name={run}", *SIM, f"parallel.reproducible={reproducible}")
        steps = [json.loads(line)["operators"] for line in (place / "runs" / run / "device.0.jsonl").read_text().splitlines()]
        check(all(("attention in any order" in step) == is_unordered for step in steps), f"attention adds in one order where that is asked for: {steps[0]}")


def what_comes_after_training():
    names = compare("lora-llama.toml", "trained", ranks=2)
    run, on_cpu = (f"runs/{name}" for name in reversed(names))
    for folder in (run, on_cpu):
        place.run(program, "evaluate", folder)
    values = [json.loads((place / folder / "evaluation.json").read_text()) for folder in (run, on_cpu)]
    for when in ("base", "tuned"):
        are_close([values[0][when]["loss"]], [values[1][when]["loss"]], f"evaluated, {when}")
    texts = [place.run(program, "generate", folder, "--prompt", "What is 1 and 1?", "--max-tokens", 12) for folder in (run, on_cpu)]
    check(texts[0] == texts[1], f"the same text is generated: {texts}")
    for folder, to in ((run, "exported-sim"), (on_cpu, "exported-cpu")):
        place.run(program, "export", folder, "--to", to, "--merge")
    are_the_same_results(place / "exported-sim", place / "exported-cpu")
    nowhere = ("env", "ATTUNE_SIM_DEVICES=0", program)
    place.run(*nowhere, "export", run, "--to", "exported-elsewhere")
    said = place.run(*nowhere, "generate", run, "--prompt", "What is 1 and 1?", "--max-tokens", 12, "--device", "cpu")
    check(said == texts[1], f"a machine without devices generates the same text: {said}")


def an_interruption_saves():
    text = (place / "full-llama.toml").read_text().replace("steps = 4", "steps = 40")
    slow = paced(text, build, 50).replace('plugins = ["', f'plugins = ["{plugin}", "')
    (place / "slow.toml").write_text(slow)
    process = place.start(*over_ranks(2, program, "train", "slow.toml", "name=slow", "parallel.device=sim"))
    while place.steps_done("slow") < 3:
        check(process.poll() is None, "it trains")
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    check((place / "runs/slow/checkpoints/latest").exists() and not (place / "runs/slow/model").exists(), "it was interrupted, and saved its state")
    (place / "hurry").touch()
    place.run(program, "train", "slow.toml", "name=slow", "parallel.device=sim", "--resume")
    place.run(program, "train", "slow.toml", "name=whole", "parallel.device=sim")
    are_close(losses("slow")[-3:], losses("whole")[-3:], "interrupted on two devices, resumed on one", 1e-5)


def bytes_between_ranks(run, ranks):
    """Of each step, what all devices sent to each other."""
    steps = [map(json.loads, (place / "runs" / run / f"device.{rank}.jsonl").read_text().splitlines()) for rank in range(ranks)]
    return [sum(each["bytes_to_ranks"] for each in step) for step in zip(*steps)]


def devices_exchange_by_themselves():
    for ranks in (2, 3, 4):
        run = compare("full-llama.toml", f"own-{ranks}", ranks=ranks)[1]
        every_step_waits_once(run, ranks)
        gradients = 4 * sum(tensor.numel() for tensor in tensors(result(run)).values())
        formula = 2 * (ranks - 1) * gradients  # of all ranks together: each sends 2 (N - 1) / N of its gradients
        sent = bytes_between_ranks(run, ranks)
        check(sent == [formula] * 4, f"{ranks} devices send {formula} bytes a step: {sent}")
        run = compare("full-llama.toml", f"by-mpi-{ranks}", "parallel.collectives=mpi", ranks=ranks)[1]
        check(sum(bytes_between_ranks(run, ranks)) == 0, "by MPI devices send nothing")
        bits = [(result(compare("full-llama.toml", f"exact-{by}-{ranks}", "parallel.reproducible=true", f"parallel.collectives={by}", ranks=ranks)[1]) / "model.safetensors").read_bytes()
                for by in ("auto", "mpi")]
        check(bits[0] == bits[1], "reproducible sums have the same bits by both")
        every_step_waits_once(f"exact-auto-{ranks}-sim", ranks)


def sim_collectives(mode, *command, expect):
    return place.run(*over_ranks(2, "env", f"ATTUNE_SIM_COLLECTIVES={mode}", program, *command), expect=expect)


def collectives_that_fail_end_the_run():
    said = sim_collectives("fail", "train", "full-llama.toml", "name=unconnected", *SIM, expect=2)
    check("NCCL cannot connect the 2 ranks (unhandled system error: simulated: no route)" in said and "NCCL_SOCKET_IFNAME (not set)" in said, f"why, and what to set: {said}")
    said = sim_collectives("memory", "train", "full-llama.toml", "name=unconnected", *SIM, expect=2)
    check("because sim:0 has no memory left for it" in said and "NCCL_SOCKET_IFNAME" not in said, f"memory is not a matter of the network: {said}")
    sim_collectives("fail", "train", "full-llama.toml", "name=connected", *SIM, "parallel.collectives=mpi", expect=0)
    (place / "paced.toml").write_text(paced((place / "full-llama.toml").read_text().replace("steps = 4", "steps = 400"), build, 50).replace('plugins = ["', f'plugins = ["{plugin}", "'))
    said = sim_collectives("break", "train", "paced.toml", "name=broken", "parallel.device=sim", expect=3)
    check("a sum over the ranks failed in NCCL: remote process exited" in said, f"what broke: {said}")


def doctor_measures_between_devices():
    doctor = lambda *ranks: place.run(*over_ranks(*ranks, "env", f"ATTUNE_PLUGINS={plugin}", program, "doctor"))
    said = doctor(3)
    check("BANDWIDTH, BY NCCL 2.0.0" in said and "within" in said and "GB/s" in said, f"links between devices: {said}")
    said = place.run(*over_ranks(2, "env", f"ATTUNE_PLUGINS={plugin}", "ATTUNE_SIM_DEVICES=1", program, "doctor"), expect=2)
    check("A run would be refused: ranks 0 and 1 on" in said, f"two ranks on one device: {said}")
    check("BY NCCL" not in place.run(*over_ranks(2, program, "doctor")), "no devices, no links between them")


def device_of(devices, *, ranks=1, expect=0, **variables):
    """Trains one step on machines with so many devices; returns what is said."""
    command = over_ranks(ranks, "env", f"ATTUNE_SIM_DEVICES={devices}", *(f"{name}={value}" for name, value in variables.items()), program, "train", "full-llama.toml",
                         "name=assigned", *SIM, "train.steps=1", "train.global_batch=4")
    shutil.rmtree(place / "runs/assigned", ignore_errors=True)
    return place.run(*command, expect=expect)


def each_sees(*devices):
    """One rank for each, which sees these devices alone."""
    command = ["mpirun", "--oversubscribe", "--bind-to", "none"]
    for number, visible in enumerate(devices):
        command += [*([":"] if number else []), "-n", "1", "env", f"ATTUNE_SIM_VISIBLE={visible}", program, "train", "full-llama.toml", "name=assigned", *SIM, "train.steps=1"]
    return command


def devices_are_shared_out():
    device_of(2, ranks=2)
    shutil.rmtree(place / "runs/assigned")
    place.run(*each_sees("2", "0"))
    shutil.rmtree(place / "runs/assigned")
    said = place.run(*each_sees("0", "64"))
    check("warning: the ranks compute on different devices (1 x Simulated, 1 x Simulated, another): rank" in said and "is the slowest" in said, f"another model is told of: {said}")


def what_cannot_be_is_refused():
    shutil.rmtree(place / "runs/assigned", ignore_errors=True)
    said = device_of(1, ranks=2, expect=2)
    check("ranks 0 and 1 on" in said and "would share one device (sim:0, SIM-0)" in said, f"two ranks on one device: {said}")
    said = place.run(*each_sees("3", "3"), expect=2)
    check("would share one device (sim:0, SIM-3)" in said, f"two ranks that see one device each, the same: {said}")
    said = device_of(0, expect=2)
    check("parallel.device is 'sim', but this LibTorch finds no such device" in said, f"no device: {said}")
    said = place.run(program, "train", "full-llama.toml", "name=assigned", "parallel.device=cuda", expect=2)
    check("parallel.device is 'cuda', but this " in said and ("LibTorch finds no such device" in said or "LibTorch was built for" in said), f"no GPU: {said}")
    said = device_of(4, ATTUNE_SIM_MEMORY=400000, expect=2)
    check("ran out of memory" in said and "lower train.micro_batch" in said, f"too little memory: {said}")
    said = place.run(*over_ranks(2, program, "train", "full-llama.toml", "name=assigned", *SIM, "parallel.shard=weights"), expect=2)
    check("shares the memory of CPUs: on GPUs set it to" in said and said.count("parallel.shard is") == 1, f"weights of devices: {said}")
    check(not (place / "runs/assigned/model").exists(), "nothing came of them")


def a_preflight_tries_the_ranks():
    for ranks, device in ((1, ()), (2, SIM), (2, ())):
        said = place.run(*over_ranks(ranks, program, "check", "full-llama.toml", "name=none", "--here", *device))
        kind = "sim" if device else "cpu"
        check(f"{ranks} rank{'s' * (ranks > 1)}, device {kind}" in said and "GFLOP/s" in said and "MB/s" in said, f"rates of {ranks} ranks on {kind}: {said}")
        check(("sum over ranks" in said) == (ranks > 1), f"a sum over several ranks: {said}")
    check(not list((place / "runs").glob(".preflight*")) and not (place / "runs/none").exists(), "nothing is left behind")
    (place / "file").touch()
    said = place.run(program, "check", "full-llama.toml", "--here", "output=file/runs", expect=2)
    check("file/runs" in said and said.strip().count("\n") == 0, f"where a rank cannot write: {said}")
    said = place.run(*over_ranks(2, "env", "ATTUNE_SIM_DEVICES=1", program, "check", "full-llama.toml", "--here", *SIM), expect=2)
    check("would share one device" in said, f"two ranks on one device: {said}")


make_inputs(place, program)
for strategy, family in combinations():
    if is_served(strategy, family):
        write_run(place, strategy, family)
wanted = [name for name in sys.argv[2:] if name != "--long"]
for test in (every_strategy_on_every_kind_of_model, every_architecture, every_optimizer_and_schedule, every_kind_of_data, options_that_change_how_it_computes,
             an_optimizer_on_the_host_is_the_same, memory_is_what_check_says, reproducible_is_refused_where_it_cannot_be, what_comes_after_training, an_interruption_saves, devices_exchange_by_themselves, collectives_that_fail_end_the_run, doctor_measures_between_devices, devices_are_shared_out, what_cannot_be_is_refused, a_preflight_tries_the_ranks):
    if wanted and test.__name__ not in wanted:
        continue
    begun = time.monotonic()
    test()
    print(f"ok {test.__name__} ({time.monotonic() - begun:.0f} s)", flush=True)
