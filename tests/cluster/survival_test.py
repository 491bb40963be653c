"""What takes minutes on a real Slurm cluster of virtual nodes: twenty preemptions of one run, a chain of time limits, a cluster that keeps accounts.

    survival_test.py BUILD_FOLDER
"""
import json
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from tiny import RUN, Workplace, check, make_model, make_recipe, over_ranks
from cluster import Cluster, adapter, history, run_tests

build = Path(sys.argv[1]).resolve()
place = Workplace(build / "tests" / "survival")
cluster = Cluster(build, place, "--nodes", "3", "--mode", "plain", "--accounting", as_user=True)
SETTINGS = ("train.schedule=constant", "slurm.nodes=2", "checkpoint.every=500")


def train(name, steps):
    place.run(*over_ranks(2, build / "attune", "train", "run.toml", f"name={name}", *SETTINGS, f"train.steps={steps}"), timeout=900)


def steps_in(seconds):
    """As many as this machine takes in that time: a time limit must be met, and preemptions must find the run at work."""
    train("measured", 300)
    return int(300 * seconds / place.events("measured", "step_end")[-1]["seconds"])


def submit(name, *settings):
    return cluster.run("attune", "submit", "run.toml", f"name={name}", *SETTINGS, f"train.steps={steps}", *settings).split()[1]


def check_result(name):
    ours, theirs = ([(step["step"], step["loss"], step["grad_norm"]) for step in place.events(run, "step_end")] for run in (name, "reference"))
    check(ours == theirs, f"the losses of {name} are those of mpirun, and every step is logged once")
    check(adapter(place, name) == adapter(place, "reference"), f"the adapter of {name} is that of mpirun, to the last bit")


def twenty_preemptions_at_random_moments_lose_nothing():
    moments = random.Random(20)
    number = submit("preempted", "slurm.stalled=20")  # some come before a step is taken
    for count in range(20):
        def runs_again():
            now = cluster.job(number)
            check(now["JobState"] != "COMPLETED", f"the run is long enough for twenty preemptions, not {count}")
            return now["JobState"] == "RUNNING" and now["Restarts"] == str(count)
        cluster.wait_for(runs_again, lambda: f"preemption {count} is over:\n{cluster.log(number)[-3000:]}")
        time.sleep(moments.uniform(0, 6))
        cluster.run("sbatch", "--partition=urgent", "--nodes=3", "--exclusive", "--output=urgent.log", "--wrap=true")
    now = cluster.wait_for_end(number, seconds=600)
    check(now["Restarts"] == "20", f"it went back into the queue twenty times: {now['Restarts']}")
    saved = history(place, "preempted").count("interrupted")
    print(f"{saved} of 20 preemptions were saved; the others came before the program watched for signals")
    check(saved >= 10, f"most found it at work: {history(place, 'preempted')}")
    check_result("preempted")


def a_chain_of_time_limits_leads_to_the_end():
    number = submit("limited", "slurm.time=1", "slurm.signal=10")
    now = cluster.wait_for_end(number, seconds=900)
    check(int(now["Restarts"]) >= 1, f"a minute was not enough: {now['Restarts']}")
    check(history(place, "limited")[-1] == "finished" and history(place, "limited").count("interrupted") == int(now["Restarts"]), f"every attempt but the last was saved: {history(place, 'limited')}")
    check_result("limited")


def what_a_job_took_is_told_and_nothing_is_written():
    before = (place / "runs/limited/record.json").read_bytes()

    def accounting():
        return json.loads(cluster.run("attune", "status", "runs/limited", "--json"))["runs"][0].get("accounting")
    accounts = cluster.wait_for(accounting, "the accounts are closed")
    check(accounts["state"] == "COMPLETED" and accounts["elapsed_seconds"] > 60 and accounts["cpu_seconds"] >= 2 * accounts["elapsed_seconds"] and accounts["memory_bytes"] > 1e7, f"over all its attempts: {accounts}")
    check((place / "runs/limited/record.json").read_bytes() == before, "the record stays as it is")


def an_account_that_is_missing_is_refused():
    said = cluster.run("attune", "submit", "run.toml", "name=refused", "slurm.account=nobody", expect=2)
    check("set slurm.account" in said and said.strip().count("\n") == 0, f"one sentence: {said}")


make_model(place / "model")
make_recipe(place)
(place / "run.toml").write_text(RUN)
place.run(build / "attune", "prepare", "sums.toml")
steps = steps_in(80)
train("reference", steps)
with cluster:
    run_tests(an_account_that_is_missing_is_refused, a_chain_of_time_limits_leads_to_the_end, what_a_job_took_is_told_and_nothing_is_written, twenty_preemptions_at_random_moments_lose_nothing)
