"""attune prepare measured: a source of any size by repetition, and what each rank of a run takes."""
import json
import random
import statistics
import time
from typing import NamedTuple

from tiny import over_ranks, write_recipe


class Cost(NamedTuple):
    wall: float       # seconds
    processor: float  # seconds of the rank that takes most, waiting for others included
    peak: float       # MiB of the rank that takes most


def write_source(place, name, megabytes):
    """name.jsonl, the same block over and over, and its recipe name.toml."""
    random.seed(0)
    words = ["".join(random.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(random.randint(2, 9))) for _ in range(5000)]
    block = "".join(json.dumps({"prompt": " ".join(random.choices(words, k=20)), "response": " ".join(random.choices(words, k=60))}) + "\n" for _ in range(20_000)).encode()
    with (place / f"{name}.jsonl").open("wb") as file:
        while file.tell() < megabytes * 1e6:
            file.write(block)
    write_recipe(place, name, validation=0.01, more='[clean]\ndeduplicate = "none"')


def prepare(place, program, name, ranks):
    measured = f"exec /usr/bin/time -f '%U %S %M' -o cost-${{OMPI_COMM_WORLD_RANK:-0}} {program} prepare {name}.toml"
    began = time.monotonic()
    place.run(*over_ranks(ranks, "sh", "-c", measured), timeout=7200)
    wall = time.monotonic() - began
    costs = [map(float, (place / f"cost-{rank}").read_text().split()) for rank in range(ranks)]
    processor, peak = zip(*((user + system, kibibytes / 1024) for user, system, kibibytes in costs))
    return Cost(wall, max(processor), max(peak))


def speedup(place, program, name, times=3):
    """How many times as fast 2 ranks are as 1, and the best of each. The median over pairs of neighbours in time: a shared machine is a third slower for
    minutes. In processor time, since a rank that waits is busy waiting: on a quiet machine that is the same as in wall time, and on a loaded one it still holds."""
    best, ratios = {}, []
    for _ in range(times):
        pair = {ranks: prepare(place, program, name, ranks) for ranks in (1, 2)}
        for ranks, cost in pair.items():
            last = best.get(ranks, cost)
            best[ranks] = Cost(min(cost.wall, last.wall), min(cost.processor, last.processor), max(cost.peak, last.peak))
        ratios.append(pair[1].processor / pair[2].processor)
        print(f"  1 and 2 ranks: {pair[1].wall:.1f} and {pair[2].wall:.1f} s, processor {pair[1].processor:.1f} and {pair[2].processor:.1f} s: {ratios[-1]:.2f}", flush=True)
    return statistics.median(ratios), best
