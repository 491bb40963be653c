"""train.prefix_cache and train.precision in whole runs on tiny models.

    prefix_test.py BUILD_FOLDER
"""
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check, make_classifier, make_model, make_picture_model, over_ranks, write_labelled, write_pictures

build = Path(sys.argv[1]).resolve()
program = build / "attune"
place = Workplace(build / "tests" / "prefix")

TRAIN = "[train]\nsteps = 20\nglobal_batch = 8\nmicro_batch = 3\nlearning_rate = 1e-2\n"
RUNS = {
    "upper": '[model]\nplugin = "llama"\npath = "model"\n[dataset]\nplugin = "instruction"\npath = "instruction.h5"\n[strategy]\nplugin = "lora"\nrank = 4\ntargets = ["layers.1.*"]\n',
    "answers": '[model]\nplugin = "llama"\npath = "model"\n[dataset]\nplugin = "preference"\npath = "preference.h5"\n[[strategy]]\nplugin = "lora"\nrank = 4\ntargets = ["layers.1.*"]\n[[strategy]]\nplugin = "dpo"\n',
    "probe": '[model]\nplugin = "bert"\npath = "classifier"\n[dataset]\nplugin = "classification"\npath = "classification.h5"\n[strategy]\nplugin = "linear_probe"\n',
    "pictures": '[model]\nplugin = "efficientnet"\npath = "pictures"\n[dataset]\nplugin = "images"\npath = "images.h5"\n[strategy]\nplugin = "linear_probe"\n',
    "thawed": '[model]\nplugin = "bert"\npath = "classifier"\n[dataset]\nplugin = "classification"\npath = "classification.h5"\n[[strategy]]\nplugin = "full"\n[[strategy]]\nplugin = "gradual_unfreezing"\nevery_steps = 3\n',
}


def train(run, name, *settings, ranks=1, expect=0):
    return place.run(*over_ranks(ranks, program, "train", f"{run}.toml", f"name={name}", *settings), expect=expect)


def losses(name):
    return [step["loss"] for step in place.events(name, "step_end")]


def check_close(name, reference, relative):
    ours, theirs = losses(name), losses(reference)
    check(len(ours) == len(theirs) == 20, f"all steps of {name} are there")
    worst = max(abs(a - b) / max(abs(a), abs(b), 1e-6) for a, b in zip(ours, theirs))
    check(worst <= relative, f"the losses of {name} are those of {reference} within {relative}: {worst}")


def kept():
    return sorted((place / "runs/.prefix").glob("*.h5"))


def what_is_kept_changes_no_loss():
    for run, blocks in (("upper", "the first 1 of 2 blocks"), ("answers", "the first 1 of 2 blocks"), ("probe", "all blocks"), ("pictures", "all blocks")):
        train(run, f"{run}-off")
        said = train(run, f"{run}-kept", "train.prefix_cache=float32")
        check(blocks in said and "kept " in said, f"it says what it keeps: {said}")
        check_close(f"{run}-kept", f"{run}-off", 1e-5)
        train(run, f"{run}-rounded", "train.prefix_cache=bfloat16")
        check_close(f"{run}-rounded", f"{run}-off", 0.1)
        check(losses(f"{run}-rounded") != losses(f"{run}-kept"), f"{run}: bfloat16 rounds what is kept")


def another_run_of_the_same_finds_it():
    before = kept()
    said = train("probe", "probe-again", "train.prefix_cache=float32", "train.learning_rate=3e-2")
    check("computing what" not in said and kept() == before, f"nothing is computed again: {said}")
    said = train("probe", "probe-other", "train.prefix_cache=float32", "model.pooling=cls")
    check("computing what" in said and len(kept()) == len(before) + 1, f"another model option is another file: {said}")
    said = train("probe", "probe-mixed-kept", "train.prefix_cache=float32", "train.precision=bfloat16")
    check("computing what" in said and len(kept()) == len(before) + 2, f"and so is another precision: {said}")


def ranks_write_the_same_file():
    train("upper", "own-folder", "train.prefix_cache=float32", "train.prefix_folder=one")
    train("upper", "two-ranks", "train.prefix_cache=float32", "train.prefix_folder=two", ranks=2)
    check_close("two-ranks", "upper-off", 1e-5)
    one, two = [next((place / folder).glob("*.h5")) for folder in ("one", "two")]
    import h5py
    with h5py.File(one) as ours, h5py.File(two) as theirs:
        check(one.name == two.name and (ours["hidden"][:] == theirs["hidden"][:]).all() and (ours["hidden.offsets"][:] == theirs["hidden.offsets"][:]).all(), "the same states on one rank and on two")
    check([path.name for path in (place / "two").iterdir()] == [two.name], "and nothing else is left there")


def a_resumed_run_goes_on_with_it():
    settings = ("train.prefix_cache=float32", "checkpoint.every=10", "checkpoint.keep=0")
    train("upper", "whole", *settings)
    shutil.copytree(place / "runs/whole", place / "runs/resumed")
    shutil.rmtree(place / "runs/resumed/checkpoints/step-000020")
    for file in kept():
        file.unlink()
    said = train("upper", "resumed", *settings, "--resume")
    check("at step 10" in said and "computing what" in said, f"it goes on, and makes the file again: {said}")
    check(losses("resumed") == losses("whole"), "with the same losses to the last bit")


def what_cannot_be_kept_is_refused():
    def refused(run, *settings):
        said = train(run, "refused", "train.prefix_cache=float32", *settings, expect=2)
        check(not (place / "runs/refused/checkpoints").exists(), "nothing was trained")
        return said
    check("the first block is trainable" in refused("upper", 'strategy.targets=["layers.0.*"]'), "LoRA on the first block")
    check("the first block is trainable" in refused("thawed"), "blocks that are thawed later on")
    check("random outputs" in refused("probe", "model.dropout=0.1"), "dropout below")
    check("randomly augmented samples" in refused("pictures", "dataset.flip=true"), "augmented pictures")
    check("no sample is used twice" in train("probe", "once", "train.prefix_cache=float32", "train.steps=4"), "one pass needs nothing kept")


def mixed_precision_trains():
    for run in ("upper", "answers", "probe"):
        train(run, f"{run}-mixed", "train.precision=bfloat16")
        check_close(f"{run}-mixed", f"{run}-off", 0.1)
        check(losses(f"{run}-mixed") != losses(f"{run}-off"), f"{run}: operands are rounded")
    said = train("upper", "both", "train.precision=bfloat16", "model.dtype=bfloat16", expect=2)
    check("set only one of them" in said, f"rounded twice: {said}")


make_model(place / "model")
make_classifier(place / "classifier")
make_picture_model(place / "pictures")
write_labelled(place)
write_pictures(place)
for kind in ("instruction", "preference", "classification", "images"):
    place.run(program, "prepare", f"{kind}.toml")
for run, text in RUNS.items():
    (place / f"{run}.toml").write_text(f'name = "{run}"\nseed = 3\n{text}{TRAIN}')
for test in (what_is_kept_changes_no_loss, another_run_of_the_same_finds_it, ranks_write_the_same_file, a_resumed_run_goes_on_with_it, what_cannot_be_kept_is_refused, mixed_precision_trains):
    test()
    print("ok", test.__name__, flush=True)
