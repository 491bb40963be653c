"""The base is evaluated once for all runs that have it in common: trials of a sweep, runs one after the other, any number of
ranks. What the evaluation depends on makes it another one.

    base_evaluation_test.py BUILD_FOLDER
"""
import json
import os
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import RUN, Workplace, check, make_classifier, make_gpt2, make_model, make_recipe, over_ranks, write_labelled

program = Path(sys.argv[1]).resolve() / "attune"
place = Workplace(Path(sys.argv[1]).resolve() / "tests" / "base-evaluation")
EVALUATES, REMEMBERS = "evaluating the base on", "as an earlier run of it found"


def base_of(name):
    return json.loads((place / "runs" / name / "evaluation.json").read_text())["base"]


def train(name, *more, ranks=1, run="run.toml"):
    """Whether it evaluated its base; it did or it remembers."""
    said = place.run(*over_ranks(ranks, program, "train", run, f"name={name}", *more))
    check((EVALUATES in said) != (REMEMBERS in said), f"{name}: one of the two: {said}")
    return EVALUATES in said


def forget():
    shutil.rmtree(place.cache)


def one_run_evaluates_for_all():
    check(train("first"), "the first one evaluates")
    for name, more, ranks in (("again", (), 1), ("rate", ("train.learning_rate=0.1",), 1), ("rank", ("strategy.rank=2", "seed=9"), 1), ("ranks", (), 2),
                              ("moved", ("model.path=other/model",), 1)):
        if name == "moved":
            shutil.copytree(place / "model", place / "other/model")
        check(not train(name, *more, ranks=ranks), f"{name} remembers")
        check(base_of(name) == base_of("first"), f"{name} has the first one's numbers to the last digit: {base_of(name)}")
    forget()
    check(train("computed"), "without the cache it is computed")
    check(base_of("computed") == base_of("first"), "and is the same")


def what_it_depends_on_makes_it_another():
    for name, more in {"fewer": ("evaluate.samples=4",), "batches": ("evaluate.micro_batch=2",), "rounded": ("train.precision=bfloat16",), "whole": ("dataset.train_on=everything",),
                       "pissa": ('strategy.init="pissa"',)}.items():
        check(train(name, *more), f"{name} is another evaluation")
    files = list((place / "model").glob("*.safetensors"))
    data = bytearray(files[0].read_bytes())
    data[-4] ^= 1  # the last bit of a float32
    files[0].write_bytes(data)
    check(train("other-weights"), "so is another base")


def a_model_is_also_its_config():
    shutil.copytree(place / "model", place / "eps")
    config = json.loads((place / "eps/config.json").read_text())
    (place / "eps/config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    check(train("eps", "model.path=eps") and base_of("eps") != base_of("other-weights"), "the same weights with another config are another base")


def an_adapter_to_start_from_is_not_in_the_base():
    """Neither what it saved whole (modules_to_save), nor biases, nor a new head."""
    still = "train.learning_rate=1e-12"
    for number, (run, more) in enumerate((("run.toml", ('strategy.save=["lm_head"]',)), ("biases.toml", ('strategy.bias="all"',)), ("classify.toml", ("strategy.plugin=lora", "strategy.rank=4")))):
        forget()
        first, second = f"saves-{number}", f"from-adapter-{number}"
        check(train(first, *more, "train.learning_rate=0.05", run=run), "a base is evaluated")
        start = (*more, f"strategy.adapter=runs/{first}/adapter", still)
        check(not train(second, *start, run=run), "a run that starts from an adapter remembers its base")
        forget()
        check(train(second, *start, "--overwrite", run=run) and base_of(second) == base_of(first), f"and computes the same: {base_of(second)}, {base_of(first)}")
        tuned = [json.loads((place / "runs" / name / "evaluation.json").read_text())["tuned"]["loss"] for name in (first, second)]
        check(abs(tuned[0] - tuned[1]) < 1e-5 and abs(tuned[0] - base_of(first)["loss"]) > 1e-4, f"it trains from the adapter: {tuned}, {base_of(first)}")
        place.run(program, "evaluate", f"runs/{second}")
        check(abs(base_of(second)["loss"] - base_of(first)["loss"]) < 1e-6, "evaluate has the same base")


def a_new_head_is_part_of_the_base():
    forget()
    check(train("head", run="classify.toml") and not train("head-again", "train.learning_rate=0.1", run="classify.toml"), "the same seed draws the same head")
    check(train("another-head", "seed=4", run="classify.toml"), "another seed another one")
    check(base_of("another-head") != base_of("head"), "whose loss is another")


def trials_side_by_side_wait_for_one():
    forget()
    (place / "sweep.toml").write_text('name = "sweep"\nrun = "run.toml"\nside_by_side = 3\n[values]\n"train.learning_rate" = [0.1, 0.2, 0.3]\n"strategy.rank" = [2, 4]\n')
    place.run(program, "sweep", "sweep.toml", "--here")
    logs = [path.read_text() for path in (place / "sweeps/sweep").rglob("*") if path.is_file() and path.suffix in (".log", ".out", ".txt")]
    evaluated, remembered = (sum(log.count(words) for log in logs) for words in (EVALUATES, REMEMBERS))
    check((evaluated, remembered) == (1, 5), f"six trials evaluate it once: {evaluated}, {remembered}, {[path.name for path in (place / 'sweeps/sweep').rglob('*')]}")


def a_damaged_or_forbidden_cache_is_none():
    forget()
    check(train("whole-cache"), "evaluated")
    for path in (place.cache / "attune/base-evaluations").iterdir():
        path.write_text('{"metrics": ')
    check(train("damaged-cache"), "what is damaged is computed again")
    check(not train("mended-cache"), "and kept again")
    for number, text in enumerate(('{"metrics":{},"without_target":0}', '{"metrics":{"accuracy":0.5},"without_target":0}', '{"metrics":{"accuracy":1,"loss":1,"perplexity":1},"without_target":-5}')):
        for path in (place.cache / "attune/base-evaluations").glob("*[0-9a-f]"):
            path.write_text(text)
        check(train(f"forged-{number}"), f"so is what no evaluation gives: {text}")
    forget()
    place.cache.write_text("")
    check(train("no-cache"), "where nothing can be kept, it is computed")


make_model(place / "model")
make_recipe(place)
(place / "run.toml").write_text(RUN)
place.run(program, "prepare", "sums.toml")
make_classifier(place / "classifier")
write_labelled(place)
(place / "classify.toml").write_text("""
name = "classify"
seed = 3
[model]
path = "classifier"
plugin = "bert"
[dataset]
path = "classification.h5"
plugin = "classification"
[strategy]
plugin = "full"
[train]
global_batch = 8
micro_batch = 4
steps = 2
""")
place.run(program, "prepare", "classification.toml")
make_gpt2(place / "gpt2", place / "model")
(place / "biases.toml").write_text(RUN.replace('"llama"', '"gpt2"').replace('path = "model"', 'path = "gpt2"'))
for path in (*place.folder.glob("model/*"), *place.folder.glob("classifier/*")):  # as a model is that was not written just now
    os.utime(path, (time.time() - 3600,) * 2)
for test in (one_run_evaluates_for_all, what_it_depends_on_makes_it_another, a_model_is_also_its_config,
             an_adapter_to_start_from_is_not_in_the_base, a_new_head_is_part_of_the_base, trials_side_by_side_wait_for_one,
             a_damaged_or_forbidden_cache_is_none):
    test()
    print(test.__name__, flush=True)
