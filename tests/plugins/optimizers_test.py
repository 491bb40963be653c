"""Every registered optimizer and schedule in whole runs of a tiny model: it learns, an interrupted run ends with the same bits, memory is planned
from what it keeps. How run files name them, also those of earlier versions.

    optimizers_test.py BUILD_FOLDER
"""
import json
import re
import shutil
import sys
from hashlib import sha256
from pathlib import Path

import h5py
import numpy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import RUN, Workplace, check, make_model, make_recipe, over_ranks

build = Path(sys.argv[1]).resolve()
program = build / "attune"
place = Workplace(build / "tests" / "optimizers")
SAVES = ("checkpoint.every=3", "checkpoint.keep=0")
RATES = {"sgd": 0.3, "adafactor": 3e-3, "lion": 1e-3}


def registered(kind):
    return [line.split()[1] for line in place.run(program, "list", kind).splitlines()[1:]]


def losses(run):
    return [event["loss"] for event in place.events(run, "step_end")]


def weights(run):
    return next((place / f"runs/{run}").glob("*/*model.safetensors")).read_bytes()


def kept(run, step=6):
    """The optimizer's tensors in a checkpoint of one rank, by name."""
    tensors = {}
    with h5py.File(place / f"runs/{run}/checkpoints/step-{step:06}/state-0000-00.h5") as file:
        for entry in file["tensors"].values():
            name = entry.attrs["name"]
            name = name.decode() if isinstance(name, bytes) else name
            if name.startswith("optimizer/"):
                tensors[name[len("optimizer/"):]] = entry[()]
    return tensors


def resumed(run, *command):
    """Its weights after it has gone on from step 3."""
    shutil.rmtree(place / f"runs/{run}/checkpoints/step-000006")
    said = place.run(*command, "--resume")
    check("at step 3" in said, f"{run} goes on from step 3: {said}")
    return weights(run)


def every_optimizer_learns_and_is_resumed_to_the_bit():
    for name in registered("optimizer"):
        for strategy, ranks in (("full", 1), ("lora", 2)):
            run = f"{name}-{strategy}"
            command = over_ranks(ranks, program, "train", f"{strategy}.toml", f"name={run}", f"train.optimizer={name}", f"train.learning_rate={RATES.get(name, 1e-2)}",
                                 "train.weight_decay=0.01", *SAVES)
            place.run(*command)
            whole, seen = weights(run), losses(run)
            check(seen[-1] < seen[0], f"{run} learns: {seen}")
            check(resumed(run, *command) == whole, f"{run}: resumed, it ends with the same bits")
            check(losses(run) == seen, f"{run}: and with the same losses")


def the_memory_of_the_state_is_planned_from_shapes():
    sizes = {}
    for name in registered("optimizer"):
        said = place.run(program, "check", "full.toml", f"train.optimizer={name}")
        planned = re.search(r"optimizer ([\d.]+ \w+)", said)[1]
        number, unit = planned.split()
        sizes[name] = float(number) * {"B": 1, "KiB": 2**10, "MiB": 2**20}[unit]
        held = sum(tensor.nbytes for tensor in kept(f"{name}-full").values())
        check(abs(sizes[name] - held) <= 0.06 * held, f"{name}: planned {planned}, held {held} bytes")
    check(sizes["sgd"] == 0 and sizes["adafactor"] < 0.2 * sizes["lion"] and sizes["lion"] < sizes["muon"] < sizes["adamw"], f"in this order: {sizes}")
    with_momentum = place.run(program, "check", "full.toml", "train.optimizer=sgd", "train.momentum=0.9")
    without = re.search(r"optimizer ([\d.]+ \w+)", with_momentum)[1]
    check(float(without.split()[0]) > 0, f"momentum takes memory: {without}")
    table = place.run(program, "inspect", "model", "--optimizer", "adafactor")
    check("with the optimizer 'adafactor'" in table, f"inspect tells of it: {table}")
    check("there is no optimizer 'adafaktor'; did you mean 'adafactor'?" in place.run(program, "inspect", "model", "--optimizer", "adafaktor", expect=2), "and refuses others")


def every_schedule_goes_on_where_it_was():
    for name in registered("schedule"):
        run = f"schedule-{name}"
        command = (program, "train", "lora.toml", f"name={run}", f"train.schedule={name}", "train.warmup=0.3", *SAVES)
        place.run(*command)
        whole, rates = weights(run), [event["learning_rate"] for event in place.events(run, "step_end")]
        check(len(rates) == 6 and rates[2] == max(rates) == 1e-2, f"{run}: the warm-up of two steps ends at the peak: {rates}")
        check(resumed(run, *command) == whole, f"{run}: resumed, it ends with the same bits")
        check([event["learning_rate"] for event in place.events(run, "step_end")] == rates, f"{run}: and has the same rates")


def a_section_says_what_the_short_form_says():
    (place / "sections.toml").write_text((place / "full.toml").read_text() + '[optimizer]\nplugin = "sgd"\nmomentum = 0.9\n[schedule]\nplugin = "cosine"\nminimum = 0.2\n')
    place.run(program, "train", "sections.toml", "name=sections", "train.learning_rate=0.1", "schedule.minimum=0.0")
    place.run(program, "train", "full.toml", "name=short", "train.learning_rate=0.1", "train.optimizer=sgd", "train.momentum=0.9", "train.schedule=cosine")
    check(weights("sections") == weights("short"), "the same run")
    ours, theirs = ((place / f"runs/{run}/run.toml").read_text().replace(run, "run") for run in ("sections", "short"))
    check(ours == theirs and '[optimizer]\nplugin = "sgd"\nmomentum = 0.9' in ours, f"and the same run file: {ours} {theirs}")
    place.run(program, "train", "runs/short/run.toml", "name=again")
    check(weights("again") == weights("short"), "which gives the run again")


def another_optimizer_is_refused_on_resume():
    said = place.run(program, "train", "lora.toml", "name=adamw-lora", "train.optimizer=lion", "train.weight_decay=0.01", *SAVES, "--resume-anyway", expect=2)
    check('optimizer.plugin is "lion" and was "adamw"' in said, f"what it kept means nothing to another: {said}")
    said = place.run(program, "train", "lora.toml", "name=adamw-lora", "train.beta2=0.5", "train.weight_decay=0.01", *SAVES, "--resume", expect=2)
    check("with different settings: optimizer.beta2 is 0.5 and was 0.999" in said, f"other options are other settings: {said}")


def into_train(essence, settings):
    """As it was when [train] held the schedule and the options of both optimizers."""
    plugin = essence.pop("optimizer.plugin", None)
    if plugin is None:
        return  # is so already
    name = json.loads(plugin)
    essence["train.optimizer"] = name
    for key in [key for key in settings if key.startswith(("optimizer.", "schedule.")) or key in (f"plugin of '{name}'", "plugin of 'cosine'")]:
        del settings[key]
    settings |= {"train.optimizer": plugin, "train.schedule": '"cosine"', "train.beta1": "0.9", "train.beta2": "0.999", "train.epsilon": "1e-08", "train.momentum": "0.0"}


def as_saved_earlier(run, options):
    """Rewrites what a checkpoint says of its run."""
    folder = place / f"runs/{run}/checkpoints/step-000003"
    with h5py.File(folder / "state-0000-00.h5", "r+") as file:
        entries = {entry.attrs["name"]: key for key, entry in file["texts"].items()}
        key = next(key for name, key in entries.items() if name in ("identity", b"identity"))
        identity = json.loads(bytes(file["texts"][key][()]))
        into_train(**identity)
        identity["settings"] |= options
        name = file["texts"][key].attrs["name"]
        del file["texts"][key]
        file["texts"].create_dataset(key, data=numpy.frombuffer(json.dumps(identity).encode(), dtype=numpy.uint8)).attrs["name"] = name
    marker = json.loads((folder / "COMPLETE").read_text())
    for part in marker["parts"]:
        content = (folder / part["file"]).read_bytes()
        part |= {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    (folder / "COMPLETE").write_text(json.dumps(marker))


def checkpoints_of_earlier_versions_are_gone_on_from():
    for name, options, earlier in (("adamw", ("train.beta2=0.98",), {"train.beta2": "0.98"}), ("sgd", ("train.momentum=0.9",), {"train.momentum": "0.9"})):
        run = f"earlier-{name}"
        command = (program, "train", "full.toml", f"name={run}", f"train.optimizer={name}", *options, *SAVES)
        place.run(*command)
        whole = weights(run)
        as_saved_earlier(run, earlier)
        check(resumed(run, *command) == whole, f"{run} ends with the same bits")
        as_saved_earlier(run, earlier | {"train.beta1": "0.5"} if name == "adamw" else {"train.momentum": "0.5"})
        shutil.rmtree(place / f"runs/{run}/checkpoints/step-000006")
        said = place.run(*command, "--resume", expect=2)
        check("and was 0.5" in said and said.count(" and was ") == 1, f"a setting that differs is told, and nothing else: {said}")


make_model(place / "model")
make_recipe(place)
place.run(program, "prepare", "sums.toml")
(place / "lora.toml").write_text(RUN)
(place / "full.toml").write_text(RUN.replace('plugin = "lora"\nrank = 4', 'plugin = "full"'))
for test in (every_optimizer_learns_and_is_resumed_to_the_bit, the_memory_of_the_state_is_planned_from_shapes, every_schedule_goes_on_where_it_was,
             a_section_says_what_the_short_form_says, another_optimizer_is_refused_on_resume, checkpoints_of_earlier_versions_are_gone_on_from):
    test()
    print(f"ok {test.__name__}", flush=True)
