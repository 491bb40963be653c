"""`attune doctor` on this machine, by itself and under mpirun.

    doctor_test.py BUILD_FOLDER
"""
import re
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from tiny import Workplace, check, over_ranks

build = Path(sys.argv[1]).resolve()
place = Workplace(build / "tests" / "doctor")


def table(said):
    """The row of the one node, by the column's name: cells are two spaces apart."""
    lines = said.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("NODE"))
    return dict(zip(re.split("  +", lines[head].strip()), re.split("  +", lines[head + 1].strip())))


def under_mpirun(*options):
    mpirun, *rest = over_ranks(2, build / "attune", "doctor")
    said = place.run(mpirun, *options, *rest)
    check("started: 2 ranks, mpirun" in said, f"how it was started: {said}")
    return table(said)


def latency(found):
    return float(found["LATENCY"].split()[0])


def quietest(*options):
    """Of three, for other work on the machine makes any one of them slow."""
    return min((under_mpirun(*options) for _ in range(3)), key=latency)


alone = place.run(build / "attune", "doctor")
check(", with Parquet" in alone, f"set-up brings Arrow, and the doctor says so: {alone}")
check("with Parquet)" in place.run(build / "attune", "--version"), "and so does --version")
check("started: 1 rank, by itself" in alone and table(alone)["HDF5"] == "ok" and table(alone)["LATENCY"] == "-", f"alone: {alone}")

shared = quietest("--mca", "btl", "self,vader")
check(shared["TRANSPORT"] == "ob1: self, vader" and shared["RANKS"] == "2" and float(shared["BANDWIDTH"].split()[0]) > 0, f"through shared memory: {shared}")
network = quietest("--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", "lo")
check(network["TRANSPORT"] == "ob1: self, tcp" and latency(network) > latency(shared), f"through the network, which is slower: {network} {shared}")

said = place.run(build / "attune", "doctor", "--output", "nowhere", expect=2)
check("nowhere: there is no such folder" in said, f"a folder that is missing: {said}")

# What plans are made from.
place.run(*over_ranks(2, build / "attune", "doctor", "--write", "machine \"two\".toml"))
machine = tomllib.loads((place / 'machine "two".toml').read_text())
check(machine["name"] == 'machine "two"' and "on 2 ranks of 1 node" in machine["source"] and machine["node"]["ranks"] == 2, f"what was measured: {machine}")
check(all(machine[part][rate] > 1e8 for part in ("alone", "together") for rate in ("float32", "bfloat16", "memory", "sums")), f"rates: {machine}")
check(machine["together"]["float32"] < 3 * machine["alone"]["float32"], f"two ranks multiply no faster than three alone: {machine}")
check(5e7 < machine["node"]["program"] < 1e9 < machine["node"]["memory"] and 0 <= machine["training"]["hidden"] <= 1 and machine["training"]["disk"] > 1e6, f"the rest: {machine}")
check(machine["between"] == {"sums": 0, "message": 0}, f"there is one node: {machine}")
check(not list(place.folder.glob(".attune-doctor*")), "it leaves no files of its own")
said = place.run(build / "attune", "doctor", "--write", "nowhere/machine.toml", expect=2)
check("there is no folder" in said, f"a folder that is missing, before anything is measured: {said}")
