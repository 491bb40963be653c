"""Attune as someone gets it who only installs it: `attune new`, find_package(Attune), ctest, and two training steps with the new strategy.

    install_test.py BUILD_FOLDER

Works in BUILD_FOLDER/tests/install, which it makes anew. Model and data are made here and are tiny.
"""
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import RUN, Workplace, check, make_model, make_recipe

build = Path(sys.argv[1]).resolve()
work = Workplace(build / "tests" / "install")
prefix = work / "prefix"
program = prefix / "bin" / "attune"
run = work.run


def install():
    run("cmake", "--install", build, "--prefix", prefix)
    listed = run(program, "list")
    for name in ("llama", "instruction", "lora", "jsonl"):
        check(f" {name} " in listed, f"the installed program lists '{name}':\n{listed}")
    check(str(build / "plugins") not in listed, "the installed program uses the installed plugins")


def scaffold():
    run(program, "new", "strategy", "tiny")
    run(program, "new", "callback", "tiny_stop", "--to", "elsewhere/tiny_stop")
    run(program, "new", "dataset", "tiny_text")
    run(program, "new", "optimizer", "tiny_descent")
    run(program, "new", "schedule", "tiny_decay")
    run(program, "new", "model", "tiny_net")
    run(program, "new", "strategy", "options")  # whose type cannot be Options
    check("struct OptionsStrategy final" in (work / "options/options.cpp").read_text(), "a type has a name that is free")
    refused = {
        ("strategy", "tiny"): "already exists",
        ("strategy", "lora", "--to", "mine"): "choose another name",
        ("optimizer", "adamw", "--to", "mine"): "choose another name",
        ("schedule", "cosine", "--to", "mine"): "choose another name",
        ("strategy", "Big-Name"): "is not a valid plugin name",
        ("strategy", "../up"): "is not a valid plugin name",
        ("stratgy", "tiny2"): "did you mean 'strategy'?",
    }
    (work / "file").write_text("no folder")
    refused[("strategy", "tiny3", "--to", "file/x")] = "file/x"
    before = sorted(work.folder.rglob("*"))
    for arguments, reason in refused.items():
        said = run(program, "new", *arguments, expect=2)
        check(reason in said, f"attune new {' '.join(arguments)} is refused with '{reason}', but says: {said}")
    check(sorted(work.folder.rglob("*")) == before, "a refused `attune new` leaves nothing behind")


def build_plugin(folder):
    ccache = shutil.which("ccache")
    launcher = [f"-DCMAKE_CXX_COMPILER_LAUNCHER={ccache}"] if ccache else []
    run("cmake", "-G", "Ninja", "-S", folder, "-B", f"{folder}/build", f"-DCMAKE_PREFIX_PATH={prefix}", *launcher)
    run("cmake", "--build", f"{folder}/build", timeout=600)
    run("ctest", "--test-dir", f"{folder}/build", "--output-on-failure", "--no-tests=error")


def try_as_documented(name):
    """What the README of a new plugin says, in its folder."""
    folder = work / name
    text = (folder / "README.md").read_text()
    commands = [line.strip() for line in text.splitlines() if line.startswith("    ") and " prepare " in line or line.strip().startswith("attune train")]
    check(len(commands) == 2, f"two commands: {commands}")
    for command in commands:
        run("bash", "-c", f"cd {name} && PATH={prefix}/bin:$PATH && {command}")
    steps = [json.loads(line) for line in (folder / f"runs/{name}/metrics.jsonl").read_text().splitlines()]
    losses = [step["loss"] for step in steps if step["event"] == "step_end"]
    check(len(losses) == 20 and losses[-1] < losses[0], f"twenty steps that learn: {losses}")


def train():
    make_model(work / "model")
    make_recipe(work)
    text = RUN.replace('name = "run"', 'name = "first"\nplugins = ["tiny/build/plugins", "tiny_descent/build/plugins", "tiny_decay/build/plugins", "elsewhere/tiny_stop/build/plugins/tiny_stop.so"]')
    text = text.replace('"lora"\nrank = 4', '"tiny"').replace("steps = 6", "steps = 2").replace("learning_rate = 1e-2\n", "")
    (work / "run.toml").write_text(text + '[[callback]]\nplugin = "tiny_stop"\nloss = 0.001\n[optimizer]\nplugin = "tiny_descent"\nmomentum = 0.5\n[schedule]\nplugin = "tiny_decay"\nhalvings = 2\n')
    run(program, "prepare", "sums.toml")
    run(program, "train", "run.toml")
    steps = work.events("first", "step_end")
    check([step["step"] for step in steps] == [1, 2], f"two steps are logged: {steps}")
    check(all(0 < step["loss"] < 10 and step["grad_norm"] > 0 for step in steps), f"they trained: {steps}")
    check([step["learning_rate"] for step in steps] == [2e-4, 1e-4], f"at the new schedule's rates: {steps}")
    said = run(program, "check", "run.toml")
    check("tiny_descent" in said and f"optimizer {5 * 32 * 4} B" in said, f"whose optimizer keeps one number for every trained one: {said}")
    begin = work.events("first", "run_begin")[0]
    check(begin["trainable_parameters"] == 5 * 32, f"the new strategy trains the five norms alone: {begin}")


install()
scaffold()
for folder in ("tiny", "elsewhere/tiny_stop", "tiny_text", "tiny_descent", "tiny_decay", "tiny_net"):
    build_plugin(folder)
for name in ("tiny", "tiny_text", "tiny_descent", "tiny_decay", "tiny_net"):
    try_as_documented(name)
train()
print("installed, scaffolded, built, trained")
