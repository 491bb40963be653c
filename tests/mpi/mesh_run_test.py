"""Whole runs on four ranks in shard groups of two, against the same runs on two ranks: every number they log and every weight is equal.

    mesh_run_test.py BUILD_FOLDER
"""
import hashlib
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check, make_model, over_ranks, write_labelled

build = Path(sys.argv[1]).resolve()
program, mesh_run = build / "attune", build / "tests" / "mesh_run"
place = Workplace(build / "tests" / "mesh")

COMMON = f"""
seed = 3
plugins = ["{build / 'plugins'}"]
[train]
steps = 6
global_batch = 8
micro_batch = 2
learning_rate = 1e-2
{{train}}
[evaluate]
every = 3
[model]
plugin = "llama"
path = "model"
[dataset]
plugin = "{{data}}"
path = "{{data}}.h5"
"""
LORA = '[[strategy]]\nplugin = "lora"\nrank = 4\n'
FULL = '[[strategy]]\nplugin = "full"\n'
UPPER = LORA + 'targets = ["layers.1.*"]\n'
RUNS = {
    "lora": ("instruction", "", LORA),
    "reproducible": ("instruction", "", LORA + "[parallel]\nreproducible = true\n"),
    "kept": ("instruction", 'prefix_cache = "float32"\n', UPPER),
    "compared": ("preference", "", FULL + '[[strategy]]\nplugin = "dpo"\n'),
    "taught": ("instruction", "", FULL + '[[strategy]]\nplugin = "distill"\nteacher = "model"\nstored = "{name}.safetensors"\ntop = 16\n'),
}
TIMES = ("seconds", "unix_seconds", "tokens_per_second")


def write_run(name, what, more=""):
    data, train, strategies = RUNS[what]
    text = f'name = "{name}"\n' + COMMON.format(data=data, train=train + more) + strategies.replace("{name}", name)
    (place / f"{name}.toml").write_text(text)
    return f"{name}.toml"


def numbers(run):
    events = place.events(run, "step_end") + place.events(run, "evaluated")
    return [{key: value for key, value in event.items() if key not in TIMES} for event in events]


def weights(run):
    place.run(program, "export", f"runs/{run}", "--to", f"{run}-exported")
    files = sorted((place / f"{run}-exported").glob("*.safetensors"))
    check(files, f"{run} is exported")
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def four_ranks_in_shards_of_two_are_two_ranks():
    for what in RUNS:
        place.run(*over_ranks(2, mesh_run, write_run(f"{what}-two", what), 1))
        place.run(*over_ranks(4, mesh_run, write_run(f"{what}-four", what), 2))
        two, four = numbers(f"{what}-two"), numbers(f"{what}-four")
        check(len(two) == 8 and two == four, f"{what}: all that is logged is equal:\n{two}\n{four}")
        if what in ("reproducible", "compared"):
            check(weights(f"{what}-two") == weights(f"{what}-four"), f"{what}: the weights are equal")


def the_test_program_trains_as_attune_does():
    place.run(*over_ranks(2, program, "train", "lora-two.toml", "name=attune"))
    check(numbers("attune") == numbers("lora-two"), "mesh_run without shards is attune train")


def a_signal_to_one_rank_ends_all_groups():
    file = place / write_run("ended", "lora")
    file.write_text(file.read_text().replace("steps = 6", "steps = 100000"))
    process = place.start(*map(str, over_ranks(4, mesh_run, "ended.toml", 2)))
    while place.steps_done("ended") < 3 and process.poll() is None:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ranks = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "mesh_run"]
    check(len(ranks) == 4, f"four ranks train: {children}")
    os.kill(ranks[3], signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    check("interrupted by signal 15" in said, f"all ranks end, with a checkpoint: {said}")
    check((place / "runs/ended/checkpoints/latest").exists(), "the state is saved")


make_model(place / "model")
write_labelled(place)
for kind in ("instruction", "preference"):
    place.run(program, "prepare", f"{kind}.toml")
for test in (four_ranks_in_shards_of_two_are_two_ranks, the_test_program_trains_as_attune_does, a_signal_to_one_rank_ends_all_groups):
    started = time.monotonic()
    test()
    print(f"ok {test.__name__} ({time.monotonic() - started:.1f} s)", flush=True)
