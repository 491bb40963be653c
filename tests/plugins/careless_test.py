"""What plugins cannot break by accident: resume, agreement of the ranks, messages. On a tiny model.

    careless_test.py BUILD_FOLDER
"""
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import RUN, Workplace, check, environment, make_model, make_recipe, over_ranks, ranks_of

build = Path(sys.argv[1]).resolve()
program = build / "attune"
place = Workplace(build / "tests" / "careless")
PLUGIN = build / "tests/fixtures/careless_fixture.so"
CARELESS = RUN.replace('plugin = "lora"\nrank = 4', 'plugin = "careless"')


def train(name, *settings, ranks=1, expect=0, run="careless.toml"):
    return place.run(*over_ranks(ranks, program, "train", run, f"name={name}", *settings), expect=expect)


def told(run):
    """What a run says of its steps, to the last bit."""
    return [(step["step"], step["loss"], step["grad_norm"], step["scalars"]) for step in place.events(run, "step_end")]


def weights(run):
    return (place / f"runs/{run}/model/model.safetensors").read_bytes()


def interrupted(name, ranks):
    """In the middle of a step: a rank has two micro-batches or four, and each takes its time."""
    environment["CARELESS_WAIT"] = "60"
    process = place.start(*map(str, over_ranks(ranks, program, "train", "careless.toml", f"name={name}")))
    del environment["CARELESS_WAIT"]
    while place.steps_done(name) < 2:
        check(process.poll() is None, "it trains")
        time.sleep(0.005)
    os.kill(ranks_of(process)[-1] if ranks > 1 else process.pid, signal.SIGUSR1)
    said, _ = process.communicate(timeout=60)
    check(process.returncode == 75, f"it is interrupted: {said}")


def a_strategy_with_a_state_resumes_exactly_in_the_middle_of_a_step():
    for ranks in (1, 2):
        whole, broken = f"whole-{ranks}", f"broken-{ranks}"
        train(whole, ranks=ranks)
        begun = [step[3]["steps_begun"] for step in told(whole)]
        check(begun == [1, 2, 3, 4, 5, 6], f"on_step is called once for each step: {begun}")
        interrupted(broken, ranks)
        train(broken, "--resume", ranks=ranks)
        check(told(broken) == told(whole), f"steps on {ranks} ranks: {told(broken)}\n{told(whole)}")
        check(weights(broken) == weights(whole), f"weights on {ranks} ranks")
    check([step[3] for step in told("whole-1")] == [step[3] for step in told("whole-2")], "what is drawn does not depend on the ranks")


def what_a_callback_asks_for_on_one_rank_all_ranks_do():
    asker = '[[callback]]\nplugin = "asker"\nstop_at = 4\ncheckpoint_at = 2\n'
    (place / "asked.toml").write_text((place / "careless.toml").read_text() + asker)
    said = train("asked", ranks=2, run="asked.toml")
    check("rank 1 has seen enough" in said, f"the reason is told: {said}")
    check(len(told("asked")) == 4, f"the run stops: {told('asked')}")
    check((place / "runs/asked/checkpoints/step-000002").exists(), "the checkpoint is there")
    first, second = ((place / f"asked.{rank}").read_text() for rank in (0, 1))
    check(first == second and len(first.split()) == 12, f"times and random numbers are the same on both ranks: {first}{second}")


def events_come_in_the_order_that_the_loop_draws():
    asker = '[[callback]]\nplugin = "asker"\nevents = "events"\n'
    (place / "events.toml").write_text((place / "careless.toml").read_text().replace("steps = 6", "epochs = 2") + asker)
    train("events", "evaluate.every=2", "checkpoint.every=3", run="events.toml")
    said = (place / "events").read_text()
    steps, epochs = len(told("events")), len(place.events("events", "epoch_end"))
    check(epochs == 2 and said.count("step_end ") == steps and said.count("evaluated ") >= steps // 2, f"two epochs: {said}")
    check(said.count("checkpoint_saved ") == len(place.events("events", "checkpoint_saved")) >= steps // 3, f"whenever one is whole: {said}")
    step = "step_begin gradients_ready step_end (evaluated )?"
    drawn = f"run_begin (epoch_begin ({step})+epoch_end ){{2}}run_end "
    check(re.fullmatch(drawn, said.replace("checkpoint_saved ", "")), f"in this order: {said}")


def hooked(name, *settings, **how):
    said = train(name, *settings, run="hooked.toml", **how)
    steps = place.events(name, "step_end") if how.get("expect", 0) == 0 else []
    return said, steps


def a_strategy_sees_gradients_steps_and_batches():
    (place / "hooked.toml").write_text((place / "careless.toml").read_text().replace('"careless"', '"hooked"') + "[checkpoint]\nevery = 2\nkeep = 0\n")
    _, plain = hooked("plain")
    _, halved = hooked("halved", "strategy.gradients=0.5", "train.clip=0")
    check(abs(halved[0]["grad_norm"] / plain[0]["grad_norm"] - 0.5) < 1e-6, f"the norm is that of the changed gradients: {halved[0]}, {plain[0]}")
    _, still = hooked("still", "strategy.gradients=0", "train.weight_decay=0")
    check(still[0]["grad_norm"] == 0 and [step["scalars"]["steps_done"] for step in still] == [0, 1, 2, 3, 4, 5], f"after_step comes once a step: {still}")
    _, own = hooked("own", "strategy.own_batches=true")
    check(own[0]["loss"] != plain[0]["loss"] and own[-1]["loss"] < own[0]["loss"], f"one target is learnt: {own[-1]}, {own[0]}")
    _, over_two = hooked("own-2", "strategy.own_batches=true", ranks=2)
    check(all(abs(one["loss"] - two["loss"]) < 1e-5 for one, two in zip(own, over_two, strict=True)), "the same on two ranks")
    shutil.copytree(place / "runs/own", place / "runs/again")
    shutil.rmtree(place / "runs/again/checkpoints/step-000006")
    hooked("again", "strategy.own_batches=true", "--resume")
    check(weights("again") == weights("own") and told("again")[-2:] == told("own")[-2:], "a resumed run goes on exactly")
    said, _ = hooked("thrown", "strategy.own_batches=true", "strategy.throws_at=3", expect=3)
    check("strategy 'hooked' failed in batches at step 3: map::at" in said, f"it is told: {said}")


def mistakes_are_told_with_plugin_function_and_step():
    for ranks, mistake, words in (
        (1, "throw", "strategy 'careless' failed in on_step at step 3: map::at"),
        (2, "throw_int", "strategy 'careless' failed in on_step at step 3: it threw something that is not a std::exception"),
        (1, "copied_state", "strategy 'careless' returns a copy of 'drawn' from state()"),
        (1, "detached_loss", "strategy 'careless' returns a loss without a gradient"),
        (1, "two_losses", "strategy 'careless' returns a loss of [2]: it must be a sum, a single number"),
    ):
        said = train(mistake, f"strategy.mistake={mistake}", "strategy.at=3", f"strategy.rank={ranks - 1}", ranks=ranks, expect=3)
        check(words in said, f"{mistake}: {said}")


def ranks_whose_weights_differ_save_nothing():
    every = '[checkpoint]\nevery = 2\n'
    (place / "saved.toml").write_text((place / "careless.toml").read_text() + every)
    said = train("diverged", "strategy.mistake=diverge", "strategy.at=3", "strategy.rank=1", ranks=2, expect=3, run="saved.toml")
    check("differs between rank 0 and rank 1" in said and "model.embed_tokens.weight" in said, f"the tensor is named: {said}")
    check([path.name for path in sorted((place / "runs/diverged/checkpoints").glob("step-*"))] == ["step-000002"], "nothing of it is saved")


def another_build_of_a_plugin_is_another_run():
    copy = place / "careless_fixture.so"
    shutil.copy(PLUGIN, copy)
    (place / "copied.toml").write_text((place / "careless.toml").read_text().replace(str(PLUGIN), str(copy)) + "[checkpoint]\nevery = 2\n")
    train("rebuilt", run="copied.toml")
    with copy.open("ab") as library:
        library.write(b"another build")
    said = train("rebuilt", "--resume", run="copied.toml", expect=2)
    check("library of 'careless_fixture 1.0.0' (sha256)" in said and "--resume-anyway" in said, f"it is told: {said}")
    train("rebuilt", "--resume", "--resume-anyway", run="copied.toml")


def inspect_survives_any_strategy():
    environment.update(ATTUNE_PLUGINS=str(PLUGIN), CARELESS_PREPARE="throws")
    said = place.run(program, "inspect", "model")
    del environment["ATTUNE_PLUGINS"], environment["CARELESS_PREPARE"]
    check("careless" in said and "it threw something that is not a std::exception" in said and "lora" in said, f"its mistake is told: {said}")


make_model(place / "model")
make_recipe(place)
(place / "careless.toml").write_text(f'plugins = ["{PLUGIN}"]\n' + CARELESS)
place.run(program, "prepare", "sums.toml")
for test in (a_strategy_with_a_state_resumes_exactly_in_the_middle_of_a_step, what_a_callback_asks_for_on_one_rank_all_ranks_do,
             events_come_in_the_order_that_the_loop_draws, a_strategy_sees_gradients_steps_and_batches,
             mistakes_are_told_with_plugin_function_and_step, ranks_whose_weights_differ_save_nothing, another_build_of_a_plugin_is_another_run,
             inspect_survives_any_strategy):
    test()
    print("ok", test.__name__, flush=True)
