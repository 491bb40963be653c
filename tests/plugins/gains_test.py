"""What the README promises of real models on real data: the tuned model is better than the base, and by how much.

    gains_test.py BUILD_FOLDER

The two runs of the README, and the strategies beside each other: some fifteen minutes on two cores.
"""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check, over_ranks

build = Path(sys.argv[1]).resolve()
source = Path(__file__).resolve().parent.parent.parent
program = build / "attune"
place = Workplace(build / "tests" / "gains")
for shared in ("models", "datasets", "data"):
    (place / shared).symlink_to(source / shared)


def tune(recipe, run, name):
    place.run(program, "prepare", recipe)
    place.run(*over_ranks(2, program, "train", run), timeout=1500)
    return json.loads((place / f"runs/{name}/evaluation.json").read_text())


foldoc = tune("datasets/foldoc/recipe.toml", "datasets/foldoc/quickstart.toml", "foldoc-quickstart")
print(foldoc)
check(foldoc["tuned"]["loss"] < foldoc["base"]["loss"] - 0.5, "LoRA lowers SmolLM2's loss on FOLDOC by more than half a nat")

from peft import PeftModel
from transformers import AutoModelForCausalLM
place.run(program, "export", "models/smollm2-135m", "--to", "smollm2-hf")
PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(place / "smollm2-hf"), str(place / "runs/foldoc-quickstart/adapter"))

# The more is trained, the better: on the same snippets, each strategy with a learning rate that suits it.
place.run(program, "prepare", "datasets/vader/recipe.toml")
accuracy = {}
for strategy, rate in (("linear_probe", 1e-2), ("bitfit", 2e-3), ("lora", 1e-3), ("full", None)):
    rate = [f"train.learning_rate={rate}"] if rate else []
    place.run(*over_ranks(2, program, "train", "datasets/vader/full.toml", f"name=vader-{strategy}", f"strategy.plugin={strategy}", *rate), timeout=1500)
    accuracy[strategy] = json.loads((place / f"runs/vader-{strategy}/evaluation.json").read_text())["tuned"]["accuracy"]
    print(f"VADER, {strategy}: accuracy {accuracy[strategy]:.4f}", flush=True)
check(accuracy["linear_probe"] < accuracy["bitfit"] < accuracy["lora"] <= accuracy["full"] + 0.005, "probe < BitFit < LoRA <= full, within half a point for the last")
check(accuracy["full"] > 0.784, "MiniLM passes naive Bayes on the VADER snippets")
