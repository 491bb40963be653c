"""`attune status`, `cancel` and `logs`: what they say of run directories, with stand-ins for Slurm's commands that answer from files.

    status_test.py BUILD_FOLDER
"""
import json
import os
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from tiny import Workplace, check, environment

build = Path(sys.argv[1]).resolve()
place = Workplace(build / "tests" / "status")
attune = build / "attune"
NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups") if os.getuid() == 0 else ()


def write(path, text):
    path = place / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def stand_in(name, lines):
    """A command that notes how it was called and prints a file; its exit code is 0."""
    program = write(f"bin/{name}", f"#!/bin/bash\necho \"$*\" >>{place.folder}/calls/{name}\n{lines}\n")
    program.chmod(0o755)


def answers(squeue="", sacct=""):
    write("answers/squeue", squeue)
    write("answers/sacct", sacct)
    shutil.rmtree(place / "calls", ignore_errors=True)
    (place / "calls").mkdir()
    (place / "calls").chmod(0o777)


def calls(name):
    file = place / "calls" / name
    return file.read_text().splitlines() if file.exists() else []


def make_run(name, *what, job="", steps=10, log=None, folder="runs"):
    """A run directory with a record of these events."""
    write(f"{folder}/{name}/run.toml", f'name = "{name}"\n')
    if job:
        write(f"{folder}/{name}/jobs", f"{job}\n")
    if what:
        history = [{"time": "x", "what": one, "step": 0, "ranks": 1, "note": "by SIGTERM" if one == "interrupted" else ""} for one in what]
        write(f"{folder}/{name}/record.json", json.dumps({"format": "attune-record", "slurm_job": job, "history": history}))
        events = [{"event": "train_begin", "step": 0, "steps": steps, "seconds": 0.0}]
        events += [{"event": "step_end", "step": step, "loss": 2.0 / step, "tokens_per_second": 10.0, "seconds": float(step)} for step in (1, 2)]
        write(f"{folder}/{name}/metrics.jsonl", "".join(json.dumps(event) + "\n" for event in events))
    if log is not None:
        write(f"{folder}/{name}/slurm-{job}.log", log)


def fresh():
    for folder in ("runs", "sweeps"):
        shutil.rmtree(place / folder, ignore_errors=True)


def as_json(*given):
    return json.loads(place.run(attune, "status", *given, "--json"))


def contents(folder):
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in sorted(folder.rglob("*"))}


def accounts_of_three_hundred_finished_trials_are_asked_for_once():
    fresh()
    lines = []
    for number in range(300):
        make_run(f"t-{number}", "started", "finished", job=f"7_{number}", steps=2)
        lines.append(f"7_{number}|COMPLETED|5|10|||cpu=2,gres/gpu=1|0:0|n1\n7_{number}.0|COMPLETED|5|10|2M||cpu=2|0:0|n1\n")
    answers(sacct="".join(lines))
    before = contents(place / "runs")
    said = as_json()
    check(said["schema"] == 1 and len(said["runs"]) == 300, "all are told")
    expected = {"state": "COMPLETED", "elapsed_seconds": 5, "cpu_seconds": 10, "gpu_seconds": 5, "memory_bytes": 2 << 20}
    check(all(run["state"] == "done" and run["accounting"] == expected for run in said["runs"]), f"with their accounts: {said['runs'][0]}")
    check(len(calls("sacct")) == 1 and len(calls("squeue")) == 0, f"one call: {calls('sacct')}")
    check(said["runs"][10]["run"] == "runs/t-10", "numbers are in their order")
    place.run(attune, "status")
    check(len(calls("sacct")) <= 2, "and one at most for the table")
    check(contents(place / "runs") == before, "nothing is written")


ENDED = {
    "memory": ("11", "11|FAILED|5|5|||cpu=1|137:0|n1\n11.0|OUT_OF_MEMORY|5|5|||cpu=1|0:125|n1\n", "OUT_OF_MEMORY: the job exceeded its memory"),
    "time": ("12", "12|REQUEUED|5|5|||cpu=1|0:0|n1\n12|TIMEOUT|60|60|||cpu=1|0:0|n1\n", "TIMEOUT: the time limit was reached before"),
    "cancelled": ("13", "13|CANCELLED by 0|5|5|||cpu=1|0:15|n1\n", "CANCELLED by root"),
    "stranger": ("14", "14|CANCELLED by 987654|5|5|||cpu=1|0:15|n1\n", "CANCELLED by user 987654"),
    "node": ("15", "15|NODE_FAIL|5|5|||cpu=1|0:0|n[1-2]\n", "NODE_FAIL: a node failed (n[1-2])"),
    "failed": ("16", "16|FAILED|5|5|||cpu=1|3:0|n1\n", "FAILED with exit code 3"),
    "killed": ("17", "17|FAILED|5|5|||cpu=1|0:9|n1\n", "killed by signal 9"),
}


def remarks_state_why_a_job_ended():
    fresh()
    for name, (job, _, _) in ENDED.items():
        make_run(name, "started", job=job, log="some words\n")
    make_run("element", job="20_4")  # cancelled before it began: sacct has the rest of the array on one line
    answers(sacct="".join(lines for _, lines, _ in ENDED.values()) + "20_[3-9%2]|CANCELLED by 0|0|0|||cpu=1|0:0|None assigned\n")
    runs = {Path(run["run"]).name: run for run in as_json()["runs"]}
    for name, (job, _, words) in ENDED.items():
        check(words in runs[name]["remark"] and runs[name]["state"] == "failed", f"{name}: {runs[name]}")
        check(f"see runs/{name}/slurm-{job}.log" in runs[name]["remark"], f"with its log: {runs[name]}")
    check(runs["cancelled"]["cancelled_by"] == "root" and runs["cancelled"]["job_state"] == "CANCELLED", f"{runs['cancelled']}")
    check(runs["element"]["state"] == "unstarted" and "CANCELLED by root" in runs["element"]["remark"], f"{runs['element']}")
    check(len(calls("sacct")) == 1, f"one call: {calls('sacct')}")
    table = place.run(attune, "status")
    check(all(words in table for _, _, words in ENDED.values()), f"the table says the same: {table}")


def without_accounts_queue_and_log_tell_why():
    fresh()
    make_run("node", "started", job="31")
    make_run("time", "started", job="32", log="slurmstepd: error: *** JOB 32 ON n1 CANCELLED AT 2026-11-28T19:17:54 DUE TO TIME LIMIT ***\n")
    make_run("memory", "started", job="33", log="slurmstepd: error: Detected 1 oom-kill event(s) in StepId=33.0.\nsrun: error: n1: task 0: Out Of Memory\n")
    make_run("own", "started", job="34", log="attune: something of its own\n")
    answers(squeue="31|31|N/A|NODE_FAIL|NodeDown|INVALID|n2\n33|33|N/A|FAILED|NonZeroExitCode|INVALID|n2\n34|34|N/A|FAILED|NonZeroExitCode|INVALID|n2\n")
    stand_in("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    remarks = {Path(run["run"]).name: run["remark"] for run in as_json()["runs"]}
    stand_in("sacct", f"cat {place.folder}/answers/sacct")
    for name, words in {"node": "NODE_FAIL: a node failed (n2)", "time": "TIMEOUT", "memory": "OUT_OF_MEMORY", "own": "FAILED"}.items():
        check(words in remarks[name], f"{name}: {remarks[name]}")


def a_run_that_cannot_be_read_does_not_stop_the_others():
    fresh()
    for name in ("a-good", "b-locked", "c-damaged", "d-odd", "e-secret", "f-good"):
        make_run(name, "started", "finished", job="40", steps=2)
    write("runs/c-damaged/record.json", '{"history": [')
    write("runs/d-odd/metrics.jsonl", '{"event": "step_end", "step": "many"}\n')
    (place / "runs/e-secret/record.json").chmod(0)
    (place / "runs/b-locked").chmod(0)
    answers()
    command = (*NOBODY, attune, "status", "--json")  # as somebody who may not look into all of them, nor write into any
    runs = {Path(run["run"]).name: run for run in json.loads(place.run(*command))["runs"]}
    (place / "runs/b-locked").chmod(0o755)
    check(list(runs) == ["a-good", "b-locked", "c-damaged", "d-odd", "e-secret", "f-good"], f"all have a row: {list(runs)}")
    check(runs["a-good"]["state"] == runs["f-good"]["state"] == "done" and runs["a-good"]["remark"] == "", f"the others are told: {runs}")
    check(runs["b-locked"]["state"] == "unreadable" and "Permission denied" in runs["b-locked"]["remark"], f"{runs['b-locked']}")
    check("record.json is damaged" in runs["c-damaged"]["remark"] and runs["c-damaged"]["step"] == 2, f"what can be read is: {runs['c-damaged']}")
    check("damaged" in runs["d-odd"]["remark"] and runs["d-odd"]["state"] == "done", f"{runs['d-odd']}")
    check("record.json: cannot be read" in runs["e-secret"]["remark"], f"{runs['e-secret']}")
    said = place.run(attune, "status", "nowhere", expect=2)
    check("nowhere: there is no such run directory" in said, said)


def queues_and_accounts_are_asked_for_in_lists_that_fit_a_command_line():
    fresh()
    for number in range(40):
        make_run(f"r-{number}", "started")
        write(f"runs/r-{number}/jobs", "".join(f"{1000000 + number * 500 + k}\n" for k in range(500)))
    answers()
    place.run(attune, "status")
    check(2 <= len(calls("squeue")) <= 3 and max(map(len, calls("squeue"))) < 131072, f"squeue: {len(calls('squeue'))} calls")


def make_sweep():
    trials = ["rank=2", "rank=4", "rank=8"]
    write("run.toml", "")
    write("grid.toml", 'name = "grid"\nrun = "run.toml"\n[values]\n"strategy.rank" = [2, 4, 8]\n')
    write("sweeps/grid/sweep.toml", (place / "grid.toml").read_text())
    write("sweeps/grid/jobs", "50\n60\n")
    for number, trial in enumerate(trials):
        make_run(trial, "started", job=f"60_{number}", folder="sweeps/grid")
        write(f"sweeps/grid/arrays/0002-{number}.log", f"log of {trial}\n")
    write("sweeps/grid/arrays/0001-0.log", "an older array\n")


def runs_arrays_and_sweeps_are_cancelled_by_their_jobs():
    fresh()
    make_run("one", "started", job="51")
    make_run("over", "started", "finished", job="52")
    make_run("local", "started")
    for number in range(12):
        make_run(f"seeds-{number}", job=f"53_{number}")
    make_run("seeds-other", job="54")
    make_sweep()
    answers(squeue="51|51|N/A|RUNNING|None|9:59|n1\n60|60|2|PENDING|Resources|10:00|\n61|60|1|RUNNING|None|9:00|n1\n60|60|0|COMPLETED|None|9:00|n1\n"
            + "".join(f"{70 + k}|53|{k}|{'PENDING' if k > 8 else 'COMPLETED'}|None|1:00|\n" for k in range(12)) + "54|54|N/A|RUNNING|None|9:59|n1\n")

    def cancelled(*given, expect=0):
        (place / "calls/scancel").unlink(missing_ok=True)
        said = place.run(attune, "cancel", *given, expect=expect)
        return said, " ".join(calls("scancel")).split()

    said, ids = cancelled("runs/one")
    check(ids == ["51"] and "job 51 is cancelled" in said, f"{ids} {said}")
    said, ids = cancelled("runs/seeds")
    check(ids == ["53_9", "53_10", "53_11"] and "3 of 12 runs are cancelled" in said, f"those in the queue alone: {ids} {said}")
    for given in ("sweeps/grid", "grid.toml"):
        said, ids = cancelled(given)
        check(sorted(ids) == ["60_1", "60_2"] and "2 of 3 runs are cancelled" in said, f"{ids} {said}")
    said, ids = cancelled("runs/over", expect=2)
    check(ids == [] and "runs/over: job 52 is no longer in the queue; the run is done" in said and said.strip().count("\n") == 0, said)
    said, ids = cancelled("runs/local", expect=2)
    check(ids == [] and "runs/local: was not submitted" in said, said)
    said, ids = cancelled("runs/over", "runs/one")
    check(ids == ["51"] and "runs/over: job 52 is no longer in the queue" in said, f"the others are cancelled all the same: {said}")
    said, ids = cancelled("runs", expect=2)
    check(ids == [] and "is a folder of" in said, f"not all that there is: {said}")
    stand_in("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    said, ids = cancelled("runs/one", expect=2)
    stand_in("squeue", f"cat {place.folder}/answers/squeue")
    check(ids == [] and "Slurm cannot be queried" in said, said)


def logs_are_those_of_the_newest_job():
    fresh()
    make_run("one", "started", "finished", job="81", log="the newest\n")
    old = write("runs/one/slurm-80.log", "an old one\n")
    os.utime(old, (1, 1))
    make_run("local", "started", "finished")
    make_run("new", job="82")
    make_run("by-hand", "started", "interrupted", job="83")  # by a script of the user's
    make_sweep()
    write("sweeps/grid/rank=16/run.toml", "")
    write("sweeps/grid/rank=16/trial.log", "a trial of this machine\n")
    answers(squeue="82|82|N/A|PENDING|Resources|10:00|\n")
    check(place.run(attune, "logs", "runs/one") == "the newest\n", "as it is, and nothing more")
    check(place.run(attune, "logs", "sweeps/grid/rank=4/") == "log of rank=4\n", "of a trial")
    check(place.run(attune, "logs", "sweeps/grid/rank=16") == "a trial of this machine\n", "also when it ran here")
    said = place.run(attune, "logs", "sweeps/grid")
    check(said.count("==> ") == 4 and "==> sweeps/grid/arrays/0002-0.log <==\nlog of rank=2\n" in said, f"all of a sweep: {said}")
    for run, words in {"runs/local": "its output went to its terminal", "runs/new": "has no log yet: job 82 waits: Resources",
                       "runs/by-hand": "the log of job 83 is at the path in its script"}.items():
        said = place.run(attune, "logs", run, expect=2)
        check(words in said and said.strip().count("\n") == 0, said)
    check("-f follows only one" in place.run(attune, "logs", "-f", "sweeps/grid", expect=2), "one is followed")
    check(place.run(attune, "logs", "-f", "runs/one") == "the newest\n", "what is over is printed")


def a_log_is_followed_until_the_run_is_over_also_after_a_requeue():
    fresh()
    make_run("grows", "started", job="91", log="first\n")
    log = place / "runs/grows/slurm-91.log"
    answers(squeue="91|91|N/A|RUNNING|None|9:59|n1\n")
    follower = place.start(attune, "logs", "-f", "runs/grows")
    time.sleep(1)
    write("answers/squeue", "91|91|N/A|PENDING|BeginTime|10:00|\n")  # requeued
    log.write_text("first\nsecond\n")
    time.sleep(3)
    check(follower.poll() is None, "it goes on while the job waits")
    write("answers/squeue", "91|91|N/A|RUNNING|None|9:59|n1\n")
    log.write_text("first\nsecond\nthird\n")
    time.sleep(3)
    make_run("grows", "started", "interrupted", "resumed", "finished", job="91", log="first\nsecond\nthird\n")
    time.sleep(3)
    check(follower.poll() is None, "it goes on while a finished run's job prints the result")
    log.write_text("first\nsecond\nthird\nlast\n")
    write("answers/squeue", "91|91|N/A|COMPLETING|None|9:59|n1\n")
    said, _ = follower.communicate(timeout=20)
    check(follower.returncode == 0 and said.replace("== job 91 waits: BeginTime: Slurm delays the job until its begin time, which is two minutes after a requeue\n", "") == "first\nsecond\nthird\nlast\n", f"each line once, to the end: {said}")


environment["PATH"] = f"{place.folder}/bin:{environment['PATH']}"
for program in ("squeue", "sacct"):
    stand_in(program, f"cat {place.folder}/answers/{program}")
stand_in("scancel", "true")
for test in (accounts_of_three_hundred_finished_trials_are_asked_for_once, remarks_state_why_a_job_ended, without_accounts_queue_and_log_tell_why,
             a_run_that_cannot_be_read_does_not_stop_the_others, queues_and_accounts_are_asked_for_in_lists_that_fit_a_command_line,
             runs_arrays_and_sweeps_are_cancelled_by_their_jobs, logs_are_those_of_the_newest_job,
             a_log_is_followed_until_the_run_is_over_also_after_a_requeue):
    test()
    print(f"ok {test.__name__}", flush=True)
