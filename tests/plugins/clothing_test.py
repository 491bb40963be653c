"""The packaged ImageNet weights of EfficientNet-Lite0 carry over to Fashion-MNIST: by a probe whose features are computed once, in full, and through LoRA on
the convolutions of single points.

    clothing_test.py BUILD_FOLDER
"""
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check, over_ranks

build = Path(sys.argv[1]).resolve()
source = Path(__file__).resolve().parent.parent.parent
program = build / "attune"
place = Workplace(build / "tests" / "clothing")
(place / "models").symlink_to(source / "models")
place.run(program, "prepare", source / "datasets/fashion-mnist/recipe.toml", f"output={place / 'data/fashion-mnist.h5'}", timeout=300)


def tune(file, name, *settings):
    said = place.run(*over_ranks(2, program, "train", source / f"datasets/fashion-mnist/{file}.toml", f"name={name}", *settings), timeout=2400)
    result = json.loads((place / f"runs/{name}/evaluation.json").read_text())
    print(f"{name}: accuracy {result['base']['accuracy']:.4f} with a new head, {result['tuned']['accuracy']:.4f} tuned, {place.events(name, 'step_end')[-1]['seconds']:.0f} s", flush=True)
    return said, result["tuned"]["accuracy"]


LORA = ["strategy.plugin=lora", 'strategy.targets=["expand_conv", "project_conv", "top_conv"]', "train.learning_rate=3e-3"]
said, probe = tune("probe", "probe")
filling = float(re.search(r"kept .* in ([\d.]+) s", said)[1])
steps = place.events("probe", "step_end")
epoch = (steps[-1]["unix_seconds"] - steps[0]["unix_seconds"]) / 10
print(f"the features in {filling:.0f} s, an epoch on them in {epoch:.1f} s", flush=True)
check(epoch < filling / 10, "an epoch on what is kept takes less than a tenth of computing it")
accuracy = {"probe": probe, "lora": tune("efficientnet", "lora", *LORA)[1], "full": tune("efficientnet", "full")[1]}
for name, least in (("probe", 0.8), ("lora", 0.8), ("full", 0.85)):
    check(accuracy[name] > least, f"{name} tells more than {least} of the pictures: {accuracy}")
