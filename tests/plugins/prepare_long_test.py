"""attune prepare on a large source: peak memory of each rank, and the time 1 and 2 ranks take.

    prepare_long_test.py BUILD_FOLDER [MEGABYTES, 5000 unless given]
"""
import json
import os
import random
import re
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check, make_model, write_recipe

build = Path(sys.argv[1]).resolve()
megabytes = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
place = Workplace(build / "tests" / "prepare_long")
make_model(place / "model")

random.seed(0)
words = ["".join(random.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(random.randint(2, 9))) for _ in range(5000)]
block = "".join(json.dumps({"prompt": " ".join(random.choices(words, k=20)), "response": " ".join(random.choices(words, k=60))}) + "\n" for _ in range(20_000)).encode()


def write(name, size):
    """A source of so many megabytes, the same block over and over."""
    with (place / f"{name}.jsonl").open("wb") as file:
        while file.tell() < size * 1e6:
            file.write(block)
    write_recipe(place, name, validation=0.01, more='[clean]\ndeduplicate = "none"')


def prepare(name, ranks):
    """Seconds, and the largest peak memory of a rank in MiB."""
    measured = f"/usr/bin/env time -f 'peak %M KiB' {build / 'attune'} prepare {name}.toml"
    began = time.monotonic()
    said = place.run("mpirun", "--oversubscribe", "--bind-to", "none", "-n", ranks, "sh", "-c", measured, timeout=7200)
    return time.monotonic() - began, max(int(peak) for peak in re.findall(r"peak (\d+) KiB", said)) / 1024


write("part", megabytes / 10)
times = {ranks: prepare("part", ranks)[0] for ranks in (1, 2)}
print(f"{megabytes / 10:.0f} MB: {times[1]:.1f} s on 1 rank, {times[2]:.1f} s on 2: {times[1] / times[2]:.2f} times as fast", flush=True)
write("whole", megabytes)
seconds, peak = prepare("whole", 2)
print(f"{megabytes} MB on 2 ranks: {seconds:.0f} s, peak memory of a rank {peak:.0f} MiB", flush=True)
shutil.rmtree(place.folder)
check(peak < 1024, "the peak memory of every rank stays under 1 GiB")
check(os.cpu_count() < 2 or times[1] / times[2] >= 1.7, "2 ranks are at least 1.7 times as fast as 1")
