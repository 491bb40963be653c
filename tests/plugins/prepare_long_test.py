"""attune prepare on a large source: peak memory of each rank, and the time 1 and 2 ranks take.

    prepare_long_test.py BUILD_FOLDER [MEGABYTES, 5000 unless given]
"""
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from prepared import prepare, speedup, write_source
from tiny import Workplace, check, make_model

build = Path(sys.argv[1]).resolve()
megabytes = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
place = Workplace(build / "tests" / "prepare_long")
make_model(place / "model")

write_source(place, "part", megabytes / 10)
ratio, best = speedup(place, build / "attune", "part")
print(f"{megabytes / 10:.0f} MB: {best[1].wall:.1f} s on 1 rank, {best[2].wall:.1f} s on 2; {ratio:.2f} times as fast by processor time", flush=True)
write_source(place, "whole", megabytes)
cost = prepare(place, build / "attune", "whole", 2)
print(f"{megabytes} MB on 2 ranks: {cost.wall:.0f} s, peak memory of a rank {cost.peak:.0f} MiB", flush=True)
shutil.rmtree(place.folder)
check(cost.peak < 1024, "the peak memory of every rank stays under 1 GiB")
check(os.cpu_count() < 2 or ratio >= 1.7, "2 ranks are at least 1.7 times as fast as 1")
