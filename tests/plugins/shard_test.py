"""What ranks share out changes no number of a run.

    shard_test.py BUILD_FOLDER [TEST...]
"""
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import RUN, Workplace, bytes_in, check, make_model, make_recipe, over_ranks, paced, ranks_of

build = Path(sys.argv[1]).resolve()
program = build / "attune"
place = Workplace(build / "tests" / "shard")


def train(ranks, file, name, *settings, expect=0):
    return place.run(*over_ranks(ranks, program, "train", f"{file}.toml", f"name={name}", *settings), expect=expect)


def steps(run):
    return [(step["loss"], step["grad_norm"]) for step in place.events(run, "step_end")]


def result(run):
    folder = next(place / "runs" / run / kind for kind in ("adapter", "model") if (place / "runs" / run / kind).exists())
    return b"".join(file.read_bytes() for file in sorted(folder.glob("*.safetensors")))


def every_stage_has_the_bits_of_one_rank():
    for file, *settings in (
        ("full",), ("lora",), ("full", "train.optimizer=adafactor"), ("full", "train.optimizer=muon"), ("full", "model.dtype=bfloat16"),
        ("full", "train.precision=bfloat16"), ("full", "train.recompute=true"), ("full", "train.micro_batch=1", "train.global_batch=7"),
    ):
        name = "-".join((file, *(re.sub("[^a-z0-9]+", "-", setting) for setting in settings)))
        train(1, file, f"{name}-1", "parallel.reproducible=true", *settings)
        for stage, ranks in (("optimizer", 2), ("gradients", 3), ("weights", 4)):  # which are the same here: the tree has whole gradients
            run = f"{name}-{stage}-{ranks}"
            train(ranks, file, run, f"parallel.shard={stage}", "parallel.reproducible=true", *settings)
            check(steps(run) == steps(f"{name}-1"), f"{run}: losses and norms of one rank: {steps(run)} {steps(f'{name}-1')}")
            check(result(run) == result(f"{name}-1"), f"{run}: the weights of one rank")


def every_stage_is_as_close_as_data_parallelism():
    for file, *settings in (("full",), ("lora",), ("full", "train.recompute=true"), ("full", "model.dtype=bfloat16"), ("full", "train.optimizer=adafactor"), ("full", "train.optimizer=muon"), ("freeze",), ("gradual",)):
        name = "-".join((file, *(re.sub("[^a-z0-9]+", "-", setting) for setting in settings)))
        train(1, file, f"{name}-alone", *settings)
        for stage, ranks, *more in (("optimizer", 2), ("gradients", 3), ("gradients", 4, "parallel.replicas=2"), ("optimizer", 4, "parallel.replicas=4"), ("weights", 3), ("weights", 4, "parallel.replicas=2")):
            run = f"{name}-{stage}-{ranks}-close"
            train(ranks, file, run, f"parallel.shard={stage}", *settings, *more)
            for (ours, norm), (theirs, their_norm) in zip(steps(run), steps(f"{name}-alone"), strict=True):
                by = 1e-2 if "model.dtype=bfloat16" in settings else 1e-6  # whose products depend on how samples are grouped
                check(abs(ours - theirs) < by * theirs and abs(norm - their_norm) < 100 * by * their_norm, f"{run}: {steps(run)} {steps(f'{name}-alone')}")


def interrupt(process, run, after):
    """After so many steps; the run saves its state."""
    while place.steps_done(run) < after:
        check(process.poll() is None, f"{run} trains")
        time.sleep(0.01)
    for rank in ranks_of(process)[:1]:
        os.kill(rank, signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    check("the state is saved" in said, said)


def a_run_goes_on_with_other_ranks_and_another_stage():
    settings = ("parallel.reproducible=true", "train.steps=12")
    train(1, "full", "whole", *settings)
    go_on = lambda ranks, stage, *more: place.start(*over_ranks(ranks, program, "train", "full-paced.toml", "name=moved", f"parallel.shard={stage}", *settings, *more))
    interrupt(go_on(4, "gradients", "parallel.replicas=2"), "moved", 3)
    interrupt(go_on(2, "weights", "--resume"), "moved", 6)
    (place / "hurry").touch()
    said, _ = go_on(3, "weights", "--resume").communicate(timeout=120)
    (place / "hurry").unlink()
    check("resumed from" in said and len(steps("moved")) == 12, said)
    check(steps("moved") == steps("whole") and result("moved") == result("whole"), f"4, 2 and 3 ranks: {steps('moved')} {steps('whole')}")


def a_step_of_many_micro_batches_can_be_interrupted():
    """Ranks that meet in every pass agree in every pass."""
    train(1, "full", "patient", "train.micro_batch=1", "train.global_batch=32", "train.steps=4", "parallel.reproducible=false")
    process = place.start(*over_ranks(3, program, "train", "full-paced.toml", "name=hasty", "parallel.shard=gradients", "train.micro_batch=1", "train.global_batch=32", "train.steps=4"))
    interrupt(process, "hasty", 1)
    train(3, "full-paced", "hasty", "parallel.shard=gradients", "train.micro_batch=1", "train.global_batch=32", "train.steps=4", "--resume")
    for (ours, _), (theirs, _) in zip(steps("hasty"), steps("patient"), strict=True):
        check(abs(ours - theirs) < 1e-5 * theirs, f"{steps('hasty')} {steps('patient')}")


def strategies_that_change_gradients_see_whole_ones():
    for gradients in (1, 3):
        hooked = (f"plugins=[\"{build}/tests/fixtures/careless_fixture.so\"]", "train.clip=0", f"strategy.gradients={gradients}")
        exact = "parallel.reproducible=true"
        train(1, "hooked", f"hooked-{gradients}", *hooked, exact)
        train(4, "hooked", f"hooked-{gradients}-4", "parallel.shard=optimizer", *hooked, exact)
        check(steps(f"hooked-{gradients}") == steps(f"hooked-{gradients}-4"), f"{steps(f'hooked-{gradients}')} {steps(f'hooked-{gradients}-4')}")
        train(3, "hooked", f"hooked-{gradients}-3", f"parallel.shard={'gradients' if gradients == 1 else 'weights'}", *hooked)
        for (ours, norm), (theirs, their_norm) in zip(steps(f"hooked-{gradients}-3"), steps(f"hooked-{gradients}"), strict=True):
            check(abs(ours - theirs) < 1e-6 * theirs and abs(norm - their_norm) < 1e-4 * norm, f"{steps(f'hooked-{gradients}-3')} {steps(f'hooked-{gradients}')}")
    check(abs(steps("hooked-3")[0][1] / steps("hooked-1")[0][1] - 3) < 1e-5, "they were changed")


def a_checkpoint_keeps_every_number_once():
    sizes = {}
    for name, ranks, *settings in (("one", 1), ("four", 4, "parallel.shard=optimizer"), ("copies", 4, "parallel.shard=optimizer", "parallel.replicas=2"), ("weights", 4, "parallel.shard=weights")):
        train(ranks, "full", f"kept-{name}", "checkpoint.every=6", *settings)
        folder = next((place / f"runs/kept-{name}/checkpoints").glob("step-*"))
        sizes[name] = sum(file.stat().st_size for file in folder.glob("*.h5"))
    check(max(sizes.values()) < 1.1 * min(sizes.values()), f"{sizes}")


def a_run_in_copies_is_used_on_one_rank():
    for file, run, stage in (("lora", "used", "gradients"), ("full", "used-weights", "weights")):
        train(4, file, run, f"parallel.shard={stage}", "parallel.replicas=2")
        alone = place.run(program, "evaluate", f"runs/{run}")
        check(place.run(*over_ranks(2, program, "evaluate", f"runs/{run}")).splitlines()[-1] == alone.splitlines()[-1], f"two ranks evaluate it, too: {alone}")
        place.run(program, "export", f"runs/{run}", "--to", f"{run}-merged", *(("--merge",) if file == "lora" else ()))
        place.run(program, "generate", f"runs/{run}", "--prompt", "1 and 1", "--max-tokens", 2)
        place.run(program, "check", f"runs/{run}/run.toml", f"name={run}-check", "--measure")
        place.run(*over_ranks(4, program, "check", f"runs/{run}/run.toml", f"name={run}-check", "--measure"))


def weights_are_changed_by_updates_alone():
    """Of a strategy that changes them itself, each rank would do so in the same memory."""
    careless = (f"plugins=[\"{build}/tests/fixtures/careless_fixture.so\"]", "strategy.mistake=diverge", "checkpoint.every=1", "train.steps=6")
    for at in (3, 6):
        said = train(3, "careless", f"changed-{at}", *careless, f"strategy.at={at}", "parallel.shard=weights", expect=2)
        check(len(steps(f"changed-{at}")) == at - 1 and not (place / f"runs/changed-{at}/model").exists(), f"nothing comes of it: {steps(f'changed-{at}')}")
    check("was changed by a plugin, not by the optimizer" in said and "set parallel.shard to \"gradients\"" in said, said)
    check(said.count("was changed by a plugin") == 1, f"it is said once: {said}")


def what_is_trained_continues_an_adapter():
    """Before the first step ranks put the base's own values in its place, and back."""
    train(1, "lora", "first", "parallel.reproducible=true")
    for ranks, *more in ((1,), (3, "parallel.shard=weights")):
        train(ranks, "lora", f"second-{ranks}", "strategy.adapter=runs/first/adapter", "parallel.reproducible=true", *more)
    check(steps("second-1") == steps("second-3") and result("second-1") == result("second-3"), f"{steps('second-1')} {steps('second-3')}")


def what_cannot_be_divided_is_refused():
    said = train(4, "full", "refused", "parallel.shard=optimizer", "parallel.replicas=3", expect=2)
    check("parallel.replicas is 3, which does not divide the run's 4 ranks" in said and not (place / "runs/refused").exists(), said)
    check(said.count("parallel.replicas is 3") == 1, f"it is said once: {said}")
    said = place.run(*over_ranks(4, program, "check", "full.toml", "name=refused", "parallel.shard=optimizer", "parallel.replicas=3"), expect=2)
    check("does not divide the run's 4 ranks" in said, f"check says so as well: {said}")
    said = place.run(program, "submit", "full.toml", "--print", "name=refused", "parallel.shard=optimizer", "parallel.replicas=4", "slurm.nodes=2", "slurm.tasks_per_node=3", expect=2)
    check("does not divide the run's 6 ranks" in said, f"and submit, before the job waits: {said}")
    job = ("slurm.nodes=2", "slurm.tasks_per_node=2", "parallel.shard=gradients")
    said = place.run(program, "check", "full.toml", "name=refused", *job, "parallel.replicas=3", expect=2)
    check("does not divide the run's 4 ranks" in said, f"check knows the ranks of a job: {said}")
    check("one of 2 shards" in place.run(program, "check", "full.toml", "name=refused", *job, "parallel.replicas=2"), "and plans for one of them")
    said = place.run(program, "check", "full.toml", "name=refused", "parallel.shard=gradients", "parallel.replicas=4294967296")
    check("parallel.shard has no effect on one rank" in said, f"one rank shares with none: {said}")
    said = train(2, "full", "refused", "parallel.replicas=2", expect=2)
    check("'replicas' counts the copies of what is sharded, but nothing is" in said, said)
    said = train(1, "full", "refused", "parallel.shard=weight", expect=2)
    check("none" in said and "gradients" in said, said)
    said = place.run(program, "check", "full.toml", "name=refused", "parallel.shard=weights", "slurm.tasks_per_node=2", "slurm.gpus_per_node=2", expect=2)
    check("shares the memory of CPUs: on GPUs set it to" in said, said)


def one_rank_and_more_ranks_than_parameters_train():
    for stage in ("gradients", "weights"):
        for name, ranks, file in ((f"alone-{stage}", 1, "full"), (f"few-{stage}", 4, "few")):
            train(ranks, file, name, f"parallel.shard={stage}")
            check(len(steps(name)) == 6, f"{name} trains")


def submit_counts_what_is_shared_out():
    job = ("slurm.nodes=2", "slurm.tasks_per_node=2", 'slurm.memory="40M"', "name=counted")
    whole = place.run(program, "submit", "large.toml", "--print", *job)
    shared = place.run(program, "submit", "large.toml", "--print", *job, "parallel.shard=gradients")
    need = lambda said: bytes_in(said.split("the ranks of a node need ")[1])
    weights = (place / "large/model.safetensors").stat().st_size
    check(need(whole) - need(shared) > 4 * weights, f"two ranks each save three quarters of the optimizer and the gradients: {whole} {shared}")
    once = place.run(program, "submit", "large.toml", "--print", *job, "parallel.shard=weights")
    check(0.9 * weights < need(shared) - need(once) < 1.1 * weights, f"and hold the weights once: {shared} {once}")
    copies = place.run(program, "submit", "large.toml", "--print", *job, "parallel.shard=weights", "parallel.replicas=4")
    check(need(copies) == need(whole) and "share" not in copies.splitlines()[0], f"but not if each holds a copy: {whole} {copies}")


def check_says_what_a_node_holds():
    on_ranks = place.run(*over_ranks(4, program, "check", "large.toml", "name=planned", "parallel.shard=weights"))
    for_job = place.run(program, "check", "large.toml", "name=planned", "parallel.shard=weights", "slurm.nodes=2", "slurm.tasks_per_node=2", "parallel.replicas=2")
    weights = (place / "large/model.safetensors").stat().st_size
    for said, ranks, shards in ((on_ranks, 4, 4), (for_job, 2, 2)):
        rank, node = (bytes_in(said.split(f"memory per {of}")[1]) for of in ("rank", "node"))
        check(f"for {ranks} ranks" in said and f"one of {shards} shards" in said, said)
        check(abs(ranks * rank - (ranks - 1) * weights - node) < 0.02 * node, f"{ranks} ranks, and weights once: {said}")


make_model(place / "model")
make_model(place / "large", hidden_size=320, intermediate_size=1280, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=4)
make_recipe(place)
STRATEGIES = {
    "lora": 'plugin = "lora"\nrank = 4', "full": 'plugin = "full"', "freeze": 'plugin = "freeze"\nlast_blocks = 1', "few": 'plugin = "prompt"\ntokens = 1',
    "gradual": None, "hooked": 'plugin = "hooked"', "careless": 'plugin = "careless"',
}
GRADUAL = '[[strategy]]\nplugin = "full"\n[[strategy]]\nplugin = "gradual_unfreezing"\nevery_steps = 2\n'
for name, strategy in STRATEGIES.items():
    run_file = re.sub(r"\[strategy\][^[]*", f"[strategy]\n{strategy}\n" if strategy else GRADUAL, RUN)
    (place / f"{name}.toml").write_text(run_file)
    (place / f"{name}-paced.toml").write_text(paced(run_file, build, 50))
(place / "large.toml").write_text((place / "full.toml").read_text().replace('path = "model"', 'path = "large"'))
place.run(program, "prepare", "sums.toml")
TESTS = (every_stage_has_the_bits_of_one_rank, every_stage_is_as_close_as_data_parallelism, a_run_goes_on_with_other_ranks_and_another_stage,
         a_step_of_many_micro_batches_can_be_interrupted, strategies_that_change_gradients_see_whole_ones, a_checkpoint_keeps_every_number_once,
         a_run_in_copies_is_used_on_one_rank, weights_are_changed_by_updates_alone, what_is_trained_continues_an_adapter, what_cannot_be_divided_is_refused, one_rank_and_more_ranks_than_parameters_train, submit_counts_what_is_shared_out, check_says_what_a_node_holds)
for test in TESTS:
    if len(sys.argv) > 2 and test.__name__ not in sys.argv[2:]:
        continue
    begin = time.monotonic()
    test()
    print(f"ok {test.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
