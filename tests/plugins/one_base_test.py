"""The frozen base of a run is in memory once on a node, however its ranks end.

    one_base_test.py BUILD_FOLDER [KILLS]
"""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import RUN, Workplace, bytes_in, check, make_model, make_recipe, over_ranks, paced, ranks_of

build = Path(sys.argv[1]).resolve()
kills = int(sys.argv[2]) if len(sys.argv) > 2 else 4
program = build / "attune"
place = Workplace(build / "tests" / "one-base")


def kilobytes(pids, line, of="attune-weights"):
    """The sum of this line of smaps over the processes' mappings whose name contains `of`."""
    total = 0
    for pid in pids:
        name = ""
        for text in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", text):
                name = text
            elif of in name and text.startswith(f"{line}:"):
                total += int(text.split()[1])
    return total


def losses(run):
    return [step["loss"] for step in place.events(run, "step_end")]


def while_it_trains(ranks, file, run, *settings):
    """Starts it and returns the process and its ranks in its third step."""
    process = place.start(*over_ranks(ranks, program, "train", f"{file}-paced.toml", f"name={run}", *settings))
    while place.steps_done(run) < 2:
        check(process.poll() is None, f"{run} trains")
        time.sleep(0.02)
    return process, ranks_of(process)


def ends(process):
    (place / "hurry").touch()
    said, _ = process.communicate(timeout=120)
    (place / "hurry").unlink()
    check(process.returncode == 0, said)
    return said


def base_kilobytes():
    return (place / "model/model.safetensors").stat().st_size / 1024


def four_ranks_hold_one_base():
    process, ranks = while_it_trains(4, "lora", "lora")
    check(len(ranks) == 4, f"{ranks}")
    pss, dirty, each = (kilobytes(ranks, line) for line in ("Pss", "Anonymous", "Rss"))
    said = json.loads(place.run(program, "status", "runs/lora", "--json"))["runs"][0]
    ends(process)
    node = json.loads((place / "runs/lora/record.json").read_text())["memory"][0]
    check(node["ranks"] == 4 and 0.95 < node["shared"] / 1024 / base_kilobytes() < 1.05, f"the record says what is shared: {node}")
    check(node["shared"] < said["memory_bytes"] < node["bytes"] * 1.5, f"and status, while it trains: {said['memory_bytes']} {node}")
    check("MEMORY" in place.run(program, "status", "runs/lora"), "in its table, too")
    check(0.95 < pss / base_kilobytes() < 1.05, f"one base of {base_kilobytes()} kB for four ranks: {pss}")
    check(dirty == 0 and each > 3.8 * base_kilobytes(), f"each of the four sees all of it, and wrote to none: {dirty}, {each}")


def what_is_trained_is_each_ranks_own():
    process, ranks = while_it_trains(2, "freeze", "freeze")
    shared = kilobytes(ranks, "Pss")
    ends(process)
    check(0.3 < shared / base_kilobytes() < 0.95, f"what is frozen is shared: {shared} of {base_kilobytes()} kB")
    process, ranks = while_it_trains(2, "full", "full")
    shared = kilobytes(ranks, "Rss")
    ends(process)
    check(shared == 0, f"nothing is left of a base that is trained: {shared} kB")


def what_is_trained_is_held_once_by_ranks_that_share_it_out():
    for run, ranks, copies, *settings in (("weights", 4, 1), ("weights-narrow", 2, 1, "model.dtype=bfloat16"), ("weights-copies", 4, 2, "parallel.replicas=2")):
        process, pids = while_it_trains(ranks, "full", run, "parallel.shard=weights", *settings)
        pss, dirty = (kilobytes(pids, line) for line in ("Pss", "Anonymous"))
        ends(process)
        expected = copies * base_kilobytes() * (0.5 if "narrow" in run else 1)
        check(0.95 * expected < pss < 1.05 * expected and dirty == 0, f"{run}: {pss} kB of {expected}, {dirty} kB of the ranks' own")
        node = json.loads((place / f"runs/{run}/record.json").read_text())["memory"][0]
        check(0.95 < copies * node["shared"] / 1024 / expected < 1.05, f"the record says so: {node}")


def no_rank_has_pages_of_its_own_before_it_trains():
    process = place.start(*over_ranks(4, program, "train", "large-paced.toml", "name=starts", "parallel.shard=weights", "train.steps=2"))
    own = seen = 0
    while process.poll() is None and place.steps_done("starts") < 1:
        with contextlib.suppress(OSError):
            seen = max(seen, kilobytes(ranks_of(process)[:1], "Rss"))
            own = max(own, kilobytes(ranks_of(process), "Anonymous"))
    ends(process)
    check(seen > 0 and own < 0.01 * seen, f"{own} kB of their own, of {seen} kB")


def files_may_be_limited():
    """ulimit -f: memory that would be shared is a file, too."""
    limited = ("bash", "-c", f"ulimit -f 50000; exec {program} train large.toml name=limited parallel.shard=weights train.steps=2")
    said = place.run(*over_ranks(2, *limited), expect=2)
    check(said.count("cannot share the memory of what is trained") == 1 and "File too large" in said, said)
    check("step 2/2" in said and not (place / "runs/limited/model").exists() and not list((place / "runs/limited").glob(".*tmp")), f"it trains, and its result is too large: {said}")


def held(pids):
    """kB that the processes hold together now; of one that has just ended, nothing."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def resuming_takes_no_more_than_training():
    """No rank puts a whole state together."""
    run = ("large", "resumed", "parallel.shard=weights", "checkpoint.every=1", "train.steps=4")
    process, ranks = while_it_trains(4, *run)
    training = held(ranks)
    ends(process)
    for checkpoint in sorted((place / "runs/resumed/checkpoints").glob("step-*"))[1:]:
        shutil.rmtree(checkpoint)
    process = place.start(*over_ranks(4, program, "train", "large-paced.toml", f"name={run[1]}", *run[2:], "--resume"))
    most = 0
    while process.poll() is None:
        most = max(most, held(ranks_of(process)))
    said = ends(process)
    check("resumed from" in said, said)
    check(most < 1.1 * training, f"{most} kB while it resumed, {training} while it trained")


def what_strategies_make_of_the_base_is_shared():
    for run, file, part, *settings in (
        ("pissa", "lora", 1.0, 'strategy.init="pissa"'), ("precision", "lora", 1.45, "train.precision=bfloat16"), ("narrow", "lora", 0.5, "model.dtype=bfloat16"),
        ("quantized", "qlora", 0.15),
    ):
        process, ranks = while_it_trains(2, file, run, *settings)
        pss, dirty = (kilobytes(ranks, line) for line in ("Pss", "Anonymous"))
        ends(process)
        check(0.8 * part < pss / base_kilobytes() < 1.2 * part and dirty == 0, f"{run}: {pss} of {base_kilobytes()} kB, {dirty} written")


def sharing_changes_no_number():
    """The bits of one rank, which shares with none."""
    for run, file, *settings in (
        ("lora", "lora"), ("dora", "lora", "strategy.dora=true"), ("pissa", "lora", 'strategy.init="pissa"'), ("narrow", "lora", "model.dtype=bfloat16"),
        ("precision", "lora", "train.precision=bfloat16"), ("quantized", "qlora"), ("full", "full"), ("freeze", "freeze"),
    ):
        for ranks in (1, 3):
            place.run(*over_ranks(ranks, program, "train", f"{file}.toml", f"name=exact-{run}-{ranks}", "parallel.reproducible=true", "train.steps=3", *settings))
        check(losses(f"exact-{run}-1") == losses(f"exact-{run}-3"), f"{run}: {losses(f'exact-{run}-1')} {losses(f'exact-{run}-3')}")


def check_says_what_is_shared():
    said = place.run(*over_ranks(4, program, "check", "lora.toml"))
    rank, node = (bytes_in(said.split(f"memory per {of}")[1]) for of in ("rank", "node"))
    base = 1024 * base_kilobytes()
    check("once per node" in said and abs(4 * rank - 3 * base - node) < 0.1 * node, f"four ranks, and three bases less: {said}")
    measured = place.run(*over_ranks(2, program, "check", "lora.toml", "--measure"))
    check("once per node" in measured and "memory per node" in measured, f"also measured: {measured}")
    check("once per node" not in place.run(program, "check", "lora.toml"), "one rank shares with none")


def shared_memory():
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Shmem:"))
    return int(line.split()[1])


def killed_runs_leave_nothing():
    before, sharing = shared_memory(), 0
    for i in range(kills):
        process = place.start(*over_ranks(2, program, "train", f"{('lora', 'full')[i // 2 % 2]}-paced.toml", f"name=killed-{i}", "train.steps=100000", "parallel.shard=weights"))
        while len(ranks_of(process)) < 2:
            check(process.poll() is None, "two ranks start")
            time.sleep(0.01)
        ranks = ranks_of(process)
        while i % 2 == 0 and kilobytes(ranks, "Rss") == 0:  # every other one before it shares anything
            check(process.poll() is None, "they share memory")
            time.sleep(0.01)
        time.sleep(0.5 * i / kills)  # some while they load
        sharing += kilobytes(ranks, "Rss") > 0
        for rank in ranks:
            with contextlib.suppress(ProcessLookupError):  # it has ended with the others
                os.kill(rank, signal.SIGKILL)
        process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:  # mpirun waits for ever for ranks that ended while they connected
            process.kill()
            process.communicate()
        check(process.returncode != 0, "it was killed")
    check(2 * sharing >= kills, f"{sharing} of {kills} were killed while they shared memory")
    time.sleep(0.5)
    left = shared_memory() - before
    check(left < 0.5 * base_kilobytes(), f"{kills} killed runs left {left} kB of shared memory")


make_model(place / "model", hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4)
make_model(place / "large", hidden_size=512, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=8)
make_recipe(place)
STRATEGIES = {
    "lora": '[strategy]\nplugin = "lora"\nrank = 4\n', "qlora": '[[strategy]]\nplugin = "quantize"\n[[strategy]]\nplugin = "lora"\nrank = 4\n',
    "full": '[strategy]\nplugin = "full"\n', "large": '[strategy]\nplugin = "full"\n', "freeze": '[strategy]\nplugin = "freeze"\nlast_blocks = 1\n',
}
for name, strategy in STRATEGIES.items():
    run_file = re.sub(r"\[strategy\][^[]*", strategy, RUN)
    run_file = run_file.replace('path = "model"', 'path = "large"') if name == "large" else run_file
    (place / f"{name}.toml").write_text(run_file)
    (place / f"{name}-paced.toml").write_text(paced(run_file.replace("steps = 6", "steps = 8"), build, 100))
place.run(program, "prepare", "sums.toml")
TESTS = (four_ranks_hold_one_base, what_is_trained_is_each_ranks_own, what_is_trained_is_held_once_by_ranks_that_share_it_out, files_may_be_limited, no_rank_has_pages_of_its_own_before_it_trains, resuming_takes_no_more_than_training, what_strategies_make_of_the_base_is_shared, sharing_changes_no_number, check_says_what_is_shared,
         killed_runs_leave_nothing)
for test in TESTS:
    begin = time.monotonic()
    test()
    print(f"ok {test.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
