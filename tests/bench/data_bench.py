"""The way of the data against what is asked of it: tokenizing beside `tokenizers`, opening, waiting, preparing. One table at the end; fails when something
falls short.

    data_bench.py BUILD_FOLDER [MEGABYTES of the source that is prepared, 300 unless given]
"""
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
import text_bench
from prepared import speedup, write_source
from tiny import Workplace

build = Path(sys.argv[1]).resolve()
megabytes = int(sys.argv[2]) if len(sys.argv) > 2 else 300
rows = []


def note(what, value, unit, asked, met):
    rows.append(f"{what:58} {value:8.2f} {unit:4} {asked:>10}  {'pass' if met else 'FALLS SHORT'}")


def figures(pattern, *command):
    """The numbers in what a program of ours prints."""
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout
    print(said, flush=True)
    found = [float(number) for number in re.findall(pattern, said)]
    assert found, f"no {pattern} in what {command[0]} says"
    return found


for name, threads, ratio in text_bench.ratios(str(build / "tests/text_bench")):
    note(f"tokenizing as fast as tokenizers, {name}, {threads} thread{'s' * (threads > 1)}", ratio, "x", ">= 1", ratio >= 1)

opened = min(figures(r"opened in ([\d.]+) ms", build / "tests/test_data", "--gtest_filter=*100MillionTokens*"))
note("a file of 100 million tokens opens in", opened, "ms", "< 50", opened < 50)

waited = max(figures(r"4 read ahead .* ([\d.]+)%", build / "tests/test_reading"))
note("waiting for data, share of a step", waited, "%", "< 1", waited < 1)

place = Workplace(build / "tests" / "data_bench")
(place / "model").symlink_to(Path(__file__).resolve().parents[2] / "models/smollm2-135m")
write_source(place, "source", megabytes)
ratio, best = speedup(place, build / "attune", "source")
shutil.rmtree(place.folder)
note(f"prepare of {megabytes} MB, 2 ranks as fast as 1", ratio, "x", ">= 1.7", ratio >= 1.7)
for ranks, cost in best.items():
    note(f"prepare of {megabytes} MB, peak memory of a rank of {ranks}", cost.peak, "MiB", "< 1024", cost.peak < 1024)

print("\n".join(rows))
sys.exit(any(row.endswith("SHORT") for row in rows))
