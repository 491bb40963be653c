"""A Slurm cluster with accounts, where an account and a QOS have limits: what is refused, and what waits, is told with the key to change.

    limits_test.py BUILD_FOLDER
"""
import json
import os
import re
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from tiny import RUN, Workplace, check, make_model, make_recipe
from cluster import Cluster, ranks_of_job, run_tests

build = Path(sys.argv[1]).resolve()
place = Workplace(build / "tests" / "limits")
cluster = Cluster(build, place, "--nodes", "2", "--mode", "plain", "--accounting", as_user=True)


def account(*words):
    cluster.run("sacctmgr", "--immediate", "--quiet", *words)


def submit(name, *settings, expect=0):
    return cluster.run("attune", "submit", "run.toml", f"name={name}", "train.steps=100000", *settings, expect=expect)


def refused(name, *settings, words):
    said = submit(name, *settings, expect=2)
    for word in words:
        check(word in said, f"'{word}' is said: {said}")
    check(said.strip().count("\n") == 0, f"in one sentence: {said}")
    check(not (place / "runs" / name).exists(), "and nothing is written")
    print(said.strip(), flush=True)


def an_account_and_a_qos_that_are_not_ones_own_are_named():
    refused("a", "slurm.account=theirs", words=["Invalid account", "set slurm.account, which is 'theirs'"])
    refused("a", "slurm.qos=gold", words=["Invalid qos specification", "set slurm.qos, which is 'gold'"])


def the_number_of_jobs_in_the_queue_is_told_as_the_limit():
    user = cluster.run("id", "-un").strip()
    account("modify", "user", user, "set", "MaxSubmitJobs=1")
    number = submit("first").split()[1]
    refused("second", words=["AssocMaxSubmitJobLimit", "the account does not allow you more jobs in the queue", "slurm.array"])
    cluster.run("scancel", number)
    account("modify", "user", user, "set", "MaxSubmitJobs=-1")


def limits_of_a_qos_refuse_or_hold_back():
    account("add", "qos", "small")
    account("modify", "qos", "small", "set", "Flags=DenyOnLimit", "MaxSubmitJobsPerUser=1", "MaxTRESPerJob=cpu=1", "MaxWall=10")
    account("modify", "user", cluster.run("id", "-un").strip(), "set", "qos+=small")
    refused("wide", "slurm.qos=small", "slurm.cpus_per_task=2", words=["QOSMaxCpuPerJobLimit", "the QOS does not allow one job more processors", "lower slurm.nodes"])
    refused("long", "slurm.qos=small", "slurm.time=60", words=["QOSMaxWallDurationPerJobLimit", "lower slurm.time"])
    number = submit("small", "slurm.qos=small").split()[1]
    refused("next", "slurm.qos=small", words=["QOSMaxSubmitJobPerUserLimit", "the QOS does not allow each user more jobs in the queue"])
    cluster.run("scancel", number)
    account("modify", "qos", "small", "set", "Flags=-1", "MaxSubmitJobsPerUser=-1", "MaxTRESPerUser=cpu=0")
    number = submit("held", "slurm.qos=small").split()[1]
    cluster.wait_for(lambda: "the QOS does not allow each user more processors" in cluster.run("attune", "status", "runs/held"), lambda: f"status says why it waits: {cluster.run('attune', 'status', 'runs/held')}")
    cluster.run("scancel", number)


def who_cancelled_a_job_and_how_it_ended_is_told():
    """Of a job that trained, of one that waited, and of one whose ranks were killed."""
    trains = submit("trains").split()[1]
    waits = submit("waits", "slurm.options={ begin = \"now+1hour\" }").split()[1]
    cluster.wait_for_steps(trains, "trains")
    said = cluster.run("attune", "cancel", "runs/trains", "runs/waits")
    check(f"job {trains} is cancelled" in said and f"job {waits} is cancelled" in said, said)
    cluster.wait_for_end(trains, "CANCELLED")
    user = cluster.run("id", "-un").strip()

    def runs():
        return json.loads(cluster.run("attune", "status", "runs/trains", "runs/waits", "--json"))["runs"]
    cluster.wait_for(lambda: all(run.get("cancelled_by") == user for run in runs()), lambda: f"both say who cancelled them: {runs()}")
    check([run["state"] for run in runs()] == ["interrupted", "unstarted"], f"{runs()}")
    check(f"CANCELLED by {user}" in runs()[0]["remark"] and f"CANCELLED by {user}" in runs()[1]["remark"], f"{runs()}")

    number = submit("killed").split()[1]
    cluster.wait_for_steps(number, "killed")
    for process in ranks_of_job(number):
        os.kill(process, signal.SIGKILL)
    cluster.wait_for_end(number, "FAILED")
    said = cluster.wait_for(lambda: next((line for line in cluster.run("attune", "status", "runs/killed").splitlines() if "FAILED" in line), None), "its end is in the accounts")
    check(re.search(rf"failed .*FAILED with exit code \d+.*; see runs/killed/slurm-{number}.log", said), f"with its exit code and log: {said}")


make_model(place / "model")
make_recipe(place)
(place / "run.toml").write_text(RUN + "[slurm]\ntime = \"10\"\n")
place.run(build / "attune", "prepare", "sums.toml")
with cluster:
    run_tests(an_account_and_a_qos_that_are_not_ones_own_are_named, the_number_of_jobs_in_the_queue_is_told_as_the_limit, limits_of_a_qos_refuse_or_hold_back,
              who_cancelled_a_job_and_how_it_ended_is_told)
