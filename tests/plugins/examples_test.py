"""Every plugin has a page and an example, and every example and run file works: recipes are prepared, run files pass `attune check`.

    examples_test.py BUILD_FOLDER
"""
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check, make_small_model

build = Path(sys.argv[1]).resolve()
source = Path(__file__).resolve().parent.parent.parent
program = build / "attune"
place = Workplace(build / "tests" / "examples")
(place / "models").mkdir()
for model in (source / "models").iterdir():
    (place / "models" / model.name).symlink_to(model)
for family in ("gpt2", "vit"):  # no package ships their weights
    make_small_model(place / "models" / family, family)

for plugin in sorted(path.parent for path in source.glob("plugins/*/*/*.cpp")):
    for part in ("README.md", "example.toml"):
        check((plugin / part).exists(), f"{plugin.relative_to(source)} has its {part}")

data, of_a_few = {}, set()  # by kind; kinds of which there are a few samples alone
recipes = [source / f"datasets/{name}/recipe.toml" for name in ("foldoc", "vader")]  # these come first; the others have a test of their own
for recipe in [*recipes, *sorted(source.glob("plugins/datasets/*/example.toml"))]:
    kind = tomllib.loads(recipe.read_text())["kind"]
    output = place / f"{recipe.parent.name}.h5"
    said = place.run(program, "prepare", recipe, f"output={output}")
    check("rejected" in said and output.exists(), f"{recipe} is prepared: {said}")
    place.run(program, "inspect", output)
    data.setdefault(kind, output)
    if recipe.name == "example.toml" and data[kind] == output:
        of_a_few.add(kind)
    print("prepared", recipe.relative_to(source), flush=True)

# By model: data that are tokenized with its tokenizer.
own_data = {"models/gpt2": place / "gpt2.h5"}
place.run(program, "prepare", source / "plugins/datasets/instruction/example.toml", f"tokenizer={place / 'models/gpt2'}", "template=plain",
          f"output={own_data['models/gpt2']}")

for example in sorted([*source.glob("plugins/*/*/example.toml"), *source.glob("datasets/*/*.toml")]):
    text = tomllib.loads(example.read_text())
    if "model" in text:
        strategies = text["strategy"] if isinstance(text["strategy"], list) else [text["strategy"]]
        earlier = [f"strategy.{strategy['plugin']}.data={data[text['dataset']['plugin']]}" for strategy in strategies if "data" in strategy]
        smaller = ["train.micro_batch=1", *(["train.global_batch=2"] if text["dataset"]["plugin"] in of_a_few else [])]
        own = own_data.get(text["model"]["path"])
        samples = own or data[text["dataset"]["plugin"]]
        if own:
            smaller.append("train.global_batch=2")
        for how in ((), ("--measure",)):  # from the files' headers, and by passes
            said = place.run(program, "check", example, f"dataset.path={samples}", *earlier, *smaller, *how)
            check("is in order" in said, f"{example} passes: {said}")
            check("--measure" not in said.split("memory per rank")[1].splitlines()[0], f"{example} is planned without values: {said}")
        print("checked", example.relative_to(source), flush=True)
