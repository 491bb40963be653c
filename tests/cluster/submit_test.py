"""`attune submit` and `attune status` on a real Slurm cluster of virtual nodes, as an ordinary user: what Slurm does to a job, the run survives.

    submit_test.py BUILD_FOLDER
"""
import json
import os
import re
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from tiny import RUN, Workplace, check, make_model, make_recipe, over_ranks, paced
from cluster import Cluster, adapter, history, ranks_of_job, run_tests

build = Path(sys.argv[1]).resolve()
place = Workplace(build / "tests" / "submit")
cluster = Cluster(build, place, "--nodes", "3", "--mode", "plain", as_user=True)
SLURM = """
[checkpoint]
every = 50
[slurm]
nodes = 2
time = "10"
"""
STEADY = ("train.schedule=constant", "train.steps=300")


def submit(name, *settings, run="run.toml"):
    said = cluster.run("attune", "submit", run, f"name={name}", *STEADY, *settings)
    return said.split()[1]


def check_result(name, reference="reference"):
    """To the last bit what the same ranks give without Slurm, interrupted or not."""
    ours, theirs = ([(step["step"], step["loss"], step["grad_norm"]) for step in place.events(run, "step_end")] for run in (name, reference))
    check(ours == theirs, f"the losses of {name} are those of mpirun")
    check(adapter(place, name) == adapter(place, reference), f"the adapter of {name} is that of mpirun")


def status(*runs):
    lines = cluster.run("attune", "status", *runs).splitlines()
    return [re.split(r" {2,}", line.strip()) for line in lines[1:]]


def a_submitted_run_trains_what_mpirun_trains():
    said = cluster.run("attune", "submit", "run.toml", "name=plain", *STEADY)
    number = said.split()[1]
    for words in ("runs/plain/job.sbatch", f"runs/plain/slurm-{number}.log", "attune status runs/plain", "2 nodes of 1 rank"):
        check(words in said, f"it says '{words}': {said}")
    cluster.wait_for_end(number)
    check_result("plain")
    check("note:" not in cluster.log(number), f"nothing is odd: {cluster.log(number)}")
    check(status("runs/plain")[0][:4] == ["runs/plain", "done", number, "300/300"], f"status says so: {status('runs/plain')}")
    record = json.loads((place / "runs/plain/record.json").read_text())
    check(record["slurm_job"] == number and record["ranks"] == 2 and "accounting" not in record, f"the record names the job, and a cluster without accounts works: {record}")
    said = cluster.run("attune", "submit", "run.toml", "name=plain", *STEADY, expect=2)
    check("contains a completed run" in said, f"it is not trained again: {said}")


def status_tells_of_a_job_that_waits_and_one_that_trains():
    number = submit("watched", "train.steps=100000")
    cluster.wait_for_steps(number, "watched")
    row = status("runs/watched")[0]
    check(row[:3] == ["runs/watched", "training", number] and row[3].endswith("/100000"), f"state, job and step: {row}")
    check(float(row[4]) > 0 and float(row[5]) > 0 and row[6].endswith(" MiB") and ":" in row[7], f"loss, tokens/s, memory and time left: {row}")
    waiting = submit("waiting", "slurm.nodes=3", "slurm.cpus_per_task=4")
    check(status("runs/waiting")[0][:3] == ["runs/waiting", "queued", waiting], f"it waits: {status('runs/waiting')}")
    said = cluster.run("attune", "submit", "run.toml", "name=waiting", *STEADY, expect=2)
    check(f"job {waiting} of this run is already in the queue" in said, f"it is not queued twice: {said}")
    for command in (("attune", "submit", "run.toml", "name=watched", *STEADY), ("attune", "train", "run.toml", "name=watched", *STEADY, "--resume")):
        said = cluster.run(*command, expect=2)
        check(f"is in use by job {number}" in said, f"a live job's directory is refused with its id: {said}")
    cluster.run("scancel", number, waiting)
    cluster.wait_for(lambda: status("runs/watched")[0][1] != "training", "its end is seen")
    check(status("runs/waiting")[0][1] == "unstarted", f"a job that was cancelled before it began: {status('runs/waiting')}")


def after_a_kill_the_lock_is_known_to_be_stale():
    number = submit("killed")
    cluster.wait_for_steps(number, "killed", 60)
    for pid in ranks_of_job(number):
        os.kill(pid, signal.SIGKILL)
    cluster.wait_for_end(number, "FAILED")
    check(list((place / "runs/killed").glob("lock.*")), "the lock is left behind")
    check(status("runs/killed")[0][1] == "failed", f"status knows: {status('runs/killed')}")
    cluster.wait_for_end(submit("killed"))
    check_result("killed")
    check(not list((place / "runs/killed").glob("lock.*")), "it went with the run")


def a_cancelled_job_saves_and_stays_away():
    number = submit("cancelled", "train.steps=100000")
    cluster.wait_for_steps(number, "cancelled")
    cluster.run("scancel", number)
    cluster.wait_for_end(number, "CANCELLED")
    cluster.wait_for(lambda: history(place, "cancelled")[-1] == "interrupted", "it saves its state", 30)
    check(cluster.job(number)["Restarts"] == "0" and status("runs/cancelled")[0][1] == "interrupted", f"it is not queued again: {cluster.job(number)}")
    before = (place / "runs/cancelled/run.toml").read_bytes()
    said = cluster.run("attune", "submit", "runs/cancelled/run.toml", "train.steps=99999", "train.learning_rate=0.5", expect=2)
    check("runs/cancelled: has checkpoints of different settings: " in said and "train.steps is 99999 and was 100000" in said, f"other settings do not wait for a refusal: {said}")
    check((place / "runs/cancelled/run.toml").read_bytes() == before, "and the run keeps its own")


def a_run_is_followed_across_a_requeue_and_cancelled():
    number = submit("followed")
    follower = cluster.start("attune", "logs", "-f", "runs/followed")
    cluster.wait_for_steps(number, "followed")
    cluster.run("scancel", "--signal=TERM", number)
    cluster.wait_for_end(number)
    said, _ = follower.communicate(timeout=60)
    check(follower.returncode == 0 and said.endswith(cluster.log(number)[-200:]), f"to its end: {said}")
    check("the state is saved" in said and said.count("the result is in runs/followed/adapter") == 1, f"across the requeue: {said}")
    check(cluster.run("attune", "logs", "runs/followed") == cluster.log(number), "logs prints the same")
    said = cluster.run("attune", "cancel", "runs/followed", expect=2)
    check(f"job {number} is no longer in the queue; the run is done" in said, f"it is over: {said}")

    array = cluster.run("attune", "submit", "run.toml", "name=several", "train.steps=100000", "slurm.nodes=1", "slurm.array=0-3%1").split()[1]
    cluster.wait_for(lambda: place.steps_done("several-0") >= 5, "the first element trains")
    said = cluster.run("attune", "cancel", "runs/several-2")
    check(f"job {array}_2 is cancelled" in said, f"one element: {said}")
    said = cluster.run("attune", "cancel", "runs/several")
    check("3 of 4 runs are cancelled" in said, f"the others: {said}")
    cluster.wait_for(lambda: [row[1] for row in status("runs/several")] == ["interrupted", "unstarted", "unstarted", "unstarted"], lambda: f"they are gone: {status('runs/several')}")


def a_signal_makes_it_save_requeue_and_resume():
    number = submit("signalled")
    cluster.wait_for_steps(number, "signalled")
    cluster.run("scancel", "--signal=TERM", number)
    now = cluster.wait_for_end(number)
    check(now["Restarts"] == "1" and history(place, "signalled") == ["started", "interrupted", "resumed", "finished"], f"once: {now['Restarts']} {history(place, 'signalled')}")
    check_result("signalled")


def requeued_by_its_user_it_resumes():
    number = submit("requeued")
    cluster.wait_for_steps(number, "requeued", 60)
    cluster.run("scontrol", "requeue", number)
    cluster.wait_for_end(number)
    check_result("requeued")


def preempted_with_or_without_grace_it_resumes():
    for partition, launcher in (("main", "srun"), ("scavenge", "srun"), ("main", "mpirun")):
        name = f"preempted-{partition}-{launcher}"
        number = submit(name, f"slurm.partition={partition}", f"slurm.launcher={launcher}", "checkpoint.every=20")
        cluster.wait_for_steps(number, name, 30)
        cluster.run("sbatch", "--parsable", "--partition=urgent", "--nodes=3", "--exclusive", "--output=urgent.log", "--wrap=sleep 1")
        now = cluster.wait_for_end(number)
        check(now["Restarts"] == "1", f"{name} is requeued once: {now['Restarts']}\n{cluster.log(number)}")
        if launcher == "srun":
            check(history(place, name)[:2] == ["started", "interrupted"], f"{name} saves before it goes: {history(place, name)}\n{cluster.log(number)}")
        check_result(name)


def where_requeueing_is_not_allowed_a_new_job_goes_on():
    number = submit("successor", 'slurm.options={ "no-requeue" = "" }')
    cluster.wait_for_steps(number, "successor")
    cluster.run("scancel", "--signal=TERM", number)
    cluster.wait_for(lambda: history(place, "successor")[-1] == "finished", lambda: f"another job finishes it:\n{cluster.log(number)}")
    jobs = {entry["job"] for entry in json.loads((place / "runs/successor/record.json").read_text())["history"]}
    check(len(jobs) == 2 and number in jobs, f"two jobs: {jobs}")
    check(set((place / "runs/successor/jobs").read_text().split()) == jobs, "status and cancel know the second as well")
    check_result("successor")



def a_dead_node_costs_the_steps_since_the_last_checkpoint():
    number = submit("node-lost", "checkpoint.every=20", "train.steps=300")
    cluster.wait_for_steps(number, "node-lost", 40)
    node = "n2" if "2" in cluster.job(number)["NodeList"] else "n3"
    cluster.node("poweroff", node)
    cluster.wait_for_end(number)
    check(node not in cluster.job(number)["NodeList"].replace("[", "").replace("]", "").replace("n", " n").split(), "it went on elsewhere")
    cluster.node("start", node)
    check_result("node-lost")


def held(name, *options):
    """A job that starts when `release` says so."""
    return submit(name, 'slurm.options={ begin = "now+1hour" }', *options)


def release(number):
    cluster.run("scontrol", "update", f"JobId={number}", "StartTime=now")


@contextmanager
def no_step_starts_on(node):
    """PMIx cannot make the folder of a step there, as on a disk that is full or broken."""
    folder = cluster.folder / "tmp" / node
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o1777)


def what_a_killed_step_left_on_a_node_is_removed():
    """A node that lost its power may keep the folder of a step over the boot; PMIx refuses the step of that name then."""
    number = held("left-over")
    user = cluster.run("id", "-u").strip()
    cluster.run("mkdir", f"{cluster.folder}/tmp/n2/spmix_appdir_{user}_{number}.0")
    release(number)
    now = cluster.wait_for_end(number, seconds=400)
    log = cluster.log(number)
    check("launch failed" in log and "no rank was launched on n2" in log, f"the launch failed on n2: {log}")
    check(now["Restarts"] == "1" and now["NodeList"] == "n[1-2]", f"the second launch was there: {now}\n{log}")
    check_result("left-over")


def a_launch_that_fails_is_tried_again_without_the_node_that_failed_twice():
    number = held("relaunched")
    with no_step_starts_on("n2"):
        release(number)
        now = cluster.wait_for_end(number, seconds=400)
    log = cluster.log(number)
    check("launch failed" in log and "no rank was launched on n2" in log, f"the launch failed on n2: {log}")
    check(now["Restarts"] == "2" and now["ExcNodeList"] == "n2" and now["NodeList"] == "n[1,3]", f"the third launch was elsewhere: {now}\n{log}")
    check_result("relaunched")
    check(not (place / "runs/relaunched/launches").exists(), "launches count no more")


def launches_that_fail_for_ever_end_the_job():
    number = held("unlaunched", "slurm.nodes=3")
    with no_step_starts_on("n3"):
        release(number)
        cluster.wait_for_end(number, "FAILED", seconds=400)
    log = cluster.log(number)
    check("the job cannot do without n3" in log and "the launch failed 3 times in a row" in log, f"all three nodes are needed: {log}")
    said = cluster.run("attune", "status", "runs/unlaunched")
    check("unstarted" in said and "the launch failed 3 times in a row on n3" in said, f"status says why: {said}")


def ranks_that_do_not_find_each_other_are_refused():
    said = cluster.run("srun", "--mpi=none", "--nodes=2", "--ntasks=2", "attune", "train", "run.toml", "name=alone", expect=2)
    check("srun started 2 tasks without PMIx" in said and said.count("without PMIx") == 1, f"srun without MPI is explained, once: {said}")
    check(not (place / "runs/alone").exists(), "and nothing is written")


def ranks_that_are_not_those_of_the_run_file_are_explained():
    said = cluster.run("srun", "--mpi=pmix", "--nodes=3", "--ntasks=3", "attune", "train", "run.toml", "name=three", "train.steps=1", "train.global_batch=9", "train.micro_batch=1")
    check("note: the ranks run on 3 nodes, but the run file asks for 2" in said and said.count("note:") == 1, f"the difference is told once: {said}")


def what_slurm_would_not_run_is_told_in_one_sentence_and_not_queued():
    before = cluster.run("squeue", "--noheader", "--states=all", "--format=%A")
    for settings, words in {
        ("slurm.partition=nowhere",): ["slurm.partition, which is 'nowhere'", "main, scavenge, urgent"],
        ("slurm.nodes=8",): ["the job requests 8 nodes of 1 task"],
        ("slurm.partition=urgent", "slurm.time=3-00:00:00"): ["slurm.time, which is '3-00:00:00'"],
        ("slurm.memory=900G",): ["900G of memory per node", "4000 MB"],
        ("slurm.constraint=quantum",): ["slurm.constraint, which is 'quantum'"],
        ("slurm.options={ nosuch = \"1\" }",): ["unrecognized option"],
        ("train.micro_batch=9",): ["'micro_batch' (9) is larger than 'global_batch' (8)"],
        ("slurm.nodes=16",): ["global_batch"],
        ("model.path=nowhere",): ["nowhere"],
        ("slurm.nods=2",): ["unknown key 'nods'; did you mean 'nodes'?"],
    }.items():
        said = cluster.run("attune", "submit", "run.toml", "name=refused", *settings, expect=2)
        for word in words:
            check(word in said, f"{settings}: '{word}' is said: {said}")
        check(said.strip().count("\n") == 0, f"one sentence: {said}")
    said = place.run("env", "PATH=/nowhere", build / "attune", "submit", "run.toml", "name=refused", expect=2)
    check("there is no sbatch on this machine" in said, f"a machine without Slurm: {said}")
    check(not (place / "runs/refused").exists(), "nothing is written")
    after = cluster.run("squeue", "--noheader", "--states=all", "--format=%A")
    check(len(before.split()) == len(after.split()), f"nothing is queued: {before} {after}")


def a_site_changes_the_script_and_not_the_run_file():
    (place / "here.toml").write_text('about = "the test cluster"\npartitions = { spare = "scavenge" }\n[slurm]\npartition = "spare"\nenvironment = { SITE = "$HOME" }\n')
    script = cluster.run("attune", "submit", "run.toml", "name=sited", "--site", "./here.toml", "--print")
    check("--partition=scavenge" in script and 'export SITE="$HOME"' in script, f"the site's partition and variables: {script}")
    number = cluster.run("attune", "submit", "run.toml", "name=sited", "train.steps=2", "--site", "./here.toml", "--wait")
    check("== job" in number and "the result is in runs/sited/adapter" in number, f"--wait shows the log to its end: {number}")
    (place / "broken.toml").write_text('scrach = "/tmp"\n')
    said = cluster.run("attune", "submit", "run.toml", "name=refused", "--site", "./broken.toml", expect=2)
    check("broken.toml:1:1: unknown key 'scrach'; did you mean 'scratch'?" in said, f"a site's mistake has its place: {said}")


def an_array_is_a_run_for_every_element():
    said = cluster.run("attune", "submit", "run.toml", "name=seeds", "train.steps=3", "slurm.nodes=1", "slurm.array=1,3-5%2")
    number = said.split()[1]
    check("4 runs, each on 1 node of 1 rank" in said and "runs/seeds.sbatch" in said, f"it says what was queued: {said}")
    check(cluster.job(number)["ArrayTaskThrottle"] == "2", f"two at a time: {cluster.job(number)}")
    said = cluster.run("attune", "submit", "run.toml", "name=seeds", "train.steps=3", "slurm.array=5-6", expect=2)
    check(f"runs/seeds-5: job {number}_5 of this run is already in the queue" in said and not (place / "runs/seeds-6").exists(), f"an element is not queued twice: {said}")
    names = [f"seeds-{element}" for element in (1, 3, 4, 5)]
    cluster.wait_for(lambda: all((place / f"runs/{name}/adapter").exists() for name in names), "every element is done")
    records = {name: json.loads((place / f"runs/{name}/record.json").read_text()) for name in names}
    check({name: record["slurm_job"] for name, record in records.items()} == {name: f"{number}_{name[-1]}" for name in names}, f"each its own job: {records}")
    check(all(f"seed = {name[-1]}\n" in (place / f"runs/{name}/run.toml").read_text() for name in names), "its number is its seed")
    check(len({adapter(place, name) for name in names}) == 4, "four seeds give four results")
    check([row[:3] for row in status(*(f"runs/{name}" for name in names))] == [[f"runs/{name}", "done", f"{number}_{name[-1]}"] for name in names], "status tells of each")

    before = cluster.run("squeue", "--noheader", "--states=all", "--format=%A")
    cluster.run("cp", "sums.h5", "part-1.h5")
    said = cluster.run("attune", "submit", "run.toml", "name=parts", "slurm.array=1-2", 'slurm.each={ "dataset.path" = "part-$SLURM_ARRAY_TASK_ID.h5" }', expect=2)
    check("element 2 of the array: part-2.h5: there is no such file" in said and said.strip().count("\n") == 0, f"an element whose run file is broken is one sentence: {said}")
    check(not list((place / "runs").glob("parts*")) and cluster.run("squeue", "--noheader", "--states=all", "--format=%A") == before, "and nothing is written or queued")


def what_the_environment_holds_does_not_overrule_the_run_file():
    """As submitted from a shell in a job, or where the site's modules set SBATCH_*."""
    shell = ("SLURM_MEM_PER_CPU=100", "SLURM_CPU_BIND=quiet,mask_cpu:0x1", "SLURM_NTASKS=7", "SBATCH_TIMELIMIT=2", "SBATCH_NO_REQUEUE=1", "SBATCH_MEM_PER_CPU=7", "SBATCH_ARRAY_INX=0-3", "SBATCH_WAIT=1",
             "SBATCH_OUTPUT=elsewhere.log", "SBATCH_PARTITION=urgent", "SQUEUE_PARTITION=scavenge", "PMIX_RANK=3", "SBATCH_QOS=")
    said = cluster.run("env", *shell, "attune", "submit", "run.toml", "name=inherited", *STEADY, "slurm.memory=500M", "slurm.partition=main")
    number = re.search(r"job (\d+) is queued", said)[1]
    for words in ("SBATCH_TIMELIMIT=2 in the environment is ignored", "SLURM_MEM_PER_CPU=100", "SBATCH_PARTITION=urgent"):
        check(words in said, f"'{words}' is told: {said}")
    job = cluster.job(number)
    asked = {"TimeLimit": "00:10:00", "Requeue": "1", "Partition": "main"}
    is_asked = {key: job[key] for key in asked} == asked and job["NumNodes"] in ("2", "2-2")  # the second while it waits
    check(is_asked and "ArrayJobId" not in job, f"the job is what the run file says: {job}")
    said = cluster.run("env", *shell, "attune", "status", "runs/inherited")
    check(f" {number} " in said and "unstarted" not in said, f"status finds it, whatever squeue would filter: {said}")
    cluster.wait_for_end(number)
    check_result("inherited")
    submit_open = ("attune", "submit", "run.toml", "name=inherited", "--print", 'slurm.time=""')
    script = cluster.run("env", "SBATCH_ACCOUNT=ours", "SBATCH_TIMELIMIT=9", *submit_open)
    check("#SBATCH --account=ours\n" in script and "#SBATCH --time=9\n" in script, f"what the run file leaves open is taken over: {script}")
    check('slurm.account = "ours" is taken from SBATCH_ACCOUNT' in script, f"and told: {script}")
    said = cluster.run("env", "SBATCH_TIMELIMIT=2", *submit_open, expect=2)
    check("'time' is '2'" in said and "it would never train" in said, f"and checked: {said}")


def from_a_shell_in_a_job_it_is_submitted_as_from_any():
    cluster.run("srun", "--mpi=pmix", "--nodes=1", "--ntasks=1", "--mem-per-cpu=100", "--cpu-bind=map_cpu:0", "attune", "submit", "run.toml", "name=nested", *STEADY, "slurm.memory=500M")
    number = (place / "runs/nested/jobs").read_text().split()[-1]
    cluster.wait_for_end(number)
    check_result("nested")
    check("note:" not in cluster.log(number), f"nothing is odd: {cluster.log(number)}")


def ranks_get_what_the_script_exports_with_export_none():
    for name, shell, option in (("by-option", (), ', export = "NONE"'), ("by-shell", ("SBATCH_EXPORT=NONE",), ""), ("by-list", (), ', export = "HOME,PATH"')):
        script = cluster.run("env", *shell, "attune", "submit", "run.toml", f"name={name}", "--print", "slurm.cpus_per_task=2", 'slurm.environment={ MARK = "50% of \'it\'" }',
                             'slurm.options={ comment = "x"' + option + " }")
        lines = [line for line in script.splitlines() if not line.startswith("attune: note")]
        check(sum(line.startswith("srun --mpi=pmix ") for line in lines) == 1, f"the ranks are started once: {script}")
        lines = [f"srun --mpi=pmix /usr/bin/env >{name}.env" if line.startswith("srun --mpi=pmix ") else line for line in lines]
        (place / f"{name}.sbatch").write_text("\n".join(lines) + "\n")
        cluster.run("mkdir", "-p", f"runs/{name}")
        cluster.run("sbatch", "--wait", f"{name}.sbatch")
        variables = (place / f"{name}.env").read_text().splitlines()
        check(variables.count("MARK=50% of 'it'") == 2 and variables.count("OMP_NUM_THREADS=2") == 2, f"{name}: both ranks have what the run file sets: {variables}")


ODD = "half 50%a 'naïve' \"x\" #5"


def names_with_percent_signs_blanks_and_quotes_stay_what_they_are():
    said = cluster.run("attune", "submit", "run.toml", f"name={ODD}", "output=runs 5%j", *STEADY, "--wait")
    directory = place / "runs 5%j" / ODD
    number = (directory / "jobs").read_text().split()[-1]
    check((directory / f"slurm-{number}.log").exists() and "the result is in" in said, f"the log is in the run directory, and is followed: {said}")
    check(json.loads((directory / "record.json").read_text())["name"] == ODD, "the name is what was given")
    check((directory / "adapter/adapter_model.safetensors").exists(), "the result is there")
    row = cluster.run("attune", "status", "runs 5%j")
    check(ODD in row and "done" in row and number in row, f"status knows it: {row}")
    cluster.run("attune", "submit", "run.toml", f"name={ODD}", "output=runs 5%j", "train.steps=3", "slurm.nodes=1", "slurm.array=0-1")
    for element in (0, 1):
        folder = place / "runs 5%j" / f"{ODD}-{element}"
        cluster.wait_for(lambda: (folder / "adapter").exists(), "every element is done")
        check(list(folder.glob(f"slurm-*_{element}.log")), "with its log in its directory")
    (place / "odd.toml").write_text(f"name = '''{ODD}'''\nrun = \"run.toml\"\n[values]\n\"strategy.rank\" = [2, 4]\n\"train.steps\" = [3]\n")
    cluster.run("attune", "sweep", "odd.toml", "output=sweeps 5%j")
    sweep = place / "sweeps 5%j" / ODD
    cluster.wait_for(lambda: len(list(sweep.glob("*/adapter"))) == 2, "both trials are done")
    check(len(list((sweep / "arrays").glob("0001-[01].log"))) == 2, f"the array's logs are where they belong: {list(sweep.rglob('*.log'))}")
    said = cluster.run("attune", "submit", "run.toml", "name=back\\slash", expect=2)
    check("cannot write a log to a path with a backslash" in said and said.strip().count("\n") == 0, f"what Slurm cannot write is refused: {said}")


def a_job_script_is_submitted_again_from_another_directory():
    number = submit("elsewhere", "train.steps=100000")
    cluster.wait_for_steps(number, "elsewhere", 60)
    cluster.run("scancel", number)
    cluster.wait_for_end(number, "CANCELLED")
    cluster.wait_for(lambda: history(place, "elsewhere")[-1] == "interrupted", "it saves its state", 30)
    run_file, script = place / "runs/elsewhere/run.toml", place / "runs/elsewhere/job.sbatch"
    run_file.write_text(run_file.read_text().replace("steps = 100000", "steps = 300"))
    script.write_text(script.read_text().replace("--resume\n", "--resume-anyway\n"))
    again = cluster.run("env", "-C", "/tmp", "sbatch", "--parsable", script).strip()
    cluster.wait_for_end(again)
    check(history(place, "elsewhere")[-2:] == ["resumed", "finished"], f"it goes on: {history(place, 'elsewhere')}")


def a_partly_finished_array_is_submitted_again_without_what_is_done():
    settings = ("train.steps=3", "slurm.nodes=1")
    array = ("attune", "submit", "run.toml", "name=partly", *settings)
    cluster.run(*array, "slurm.array=1-2")
    cluster.wait_for(lambda: all(status(f"runs/partly-{element}")[0][1] == "done" for element in (1, 2)), "two elements are done")
    first = (place / "runs/partly-1/jobs").read_text()
    said = cluster.run(*array, "slurm.array=0-4%2")
    number = re.search(r"job (\d+) is queued", said)[1]
    check("2 of 5 runs are done already" in said and "3 runs, each on" in said, f"it says so: {said}")
    check(cluster.job(number)["ArrayTaskThrottle"] == "2", "as many at a time as before")
    cluster.wait_for(lambda: all(status(f"runs/partly-{element}")[0][1] == "done" for element in range(5)), "all are done")
    jobs = {element: (place / f"runs/partly-{element}/jobs").read_text().split() for element in range(5)}
    check([jobs[element][-1] == f"{number}_{element}" for element in range(5)] == [True, False, False, True, True], f"what was missing has a job: {jobs}")
    check((place / "runs/partly-1/jobs").read_text() == first, "what is done is left alone")
    said = cluster.run(*array, "slurm.array=0-4%2", expect=2)
    check("runs/partly-0: contains a completed run" in said, f"nothing is left to do: {said}")


def too_little_memory_is_a_note_at_submission():
    words = "but the ranks of a node need "
    said = cluster.run("attune", "submit", "run.toml", "name=small", "slurm.memory=100K", "--print")
    check('slurm.memory is "100K", ' + words in said, f"it is told: {said}")
    check(words not in cluster.run("attune", "submit", "run.toml", "name=small", "slurm.memory=1G", "--print"), "and not when it is enough")


def data_and_model_are_staged_when_the_site_says_so():
    (place / "staging.toml").write_text(f'scratch = "{place.folder}/scratch/$SLURM_JOB_ID"\nstage = ["data", "model"]\n')
    number = submit("staged", "--site", "./staging.toml")
    cluster.wait_for_steps(number, "staged")
    copies = list((place / "scratch" / number).glob("attune-*/data/sums.h5"))
    check(copies and list((place / "scratch" / number).glob("attune-*/model/model/config.json")), "data and model are copied")
    cluster.wait_for_end(number)
    check(not list((place / "scratch" / number).iterdir()), "and removed")
    record = json.loads((place / "runs/staged/record.json").read_text())
    check(record["data"]["path"] == "sums.h5" and record["base_model"]["path"] == "model", f"the record names the originals: {record['data']}")
    check_result("staged")

    cluster.run("cp", "-r", "model", "huge")
    cluster.run("truncate", "--size=8T", "huge/huge.bin")  # takes no space itself
    number = submit("too-large", "model.path=huge", "--site", "./staging.toml")
    cluster.wait_for_end(number, "FAILED")
    check("8.0 TiB are needed," in cluster.log(number), f"a scratch that is too small is told: {cluster.log(number)}")
    check(cluster.job(number)["Restarts"] == "0", "and not tried again")
    (place / "huge/huge.bin").unlink()  # who copies the build folder may write all of it


make_model(place / "model")
make_recipe(place)
(place / "run.toml").write_text(paced(RUN + SLURM, build, 10))
place.run(build / "attune", "prepare", "sums.toml")
place.run(*over_ranks(2, build / "attune", "train", "run.toml", "name=reference", *STEADY))
with cluster:
    run_tests(a_submitted_run_trains_what_mpirun_trains, status_tells_of_a_job_that_waits_and_one_that_trains, after_a_kill_the_lock_is_known_to_be_stale, a_cancelled_job_saves_and_stays_away, a_run_is_followed_across_a_requeue_and_cancelled,
              a_signal_makes_it_save_requeue_and_resume, requeued_by_its_user_it_resumes, preempted_with_or_without_grace_it_resumes,
              where_requeueing_is_not_allowed_a_new_job_goes_on, a_dead_node_costs_the_steps_since_the_last_checkpoint,
              what_a_killed_step_left_on_a_node_is_removed, a_launch_that_fails_is_tried_again_without_the_node_that_failed_twice, launches_that_fail_for_ever_end_the_job, ranks_that_do_not_find_each_other_are_refused,
              ranks_that_are_not_those_of_the_run_file_are_explained,
              what_slurm_would_not_run_is_told_in_one_sentence_and_not_queued, a_site_changes_the_script_and_not_the_run_file,
              an_array_is_a_run_for_every_element, what_the_environment_holds_does_not_overrule_the_run_file, from_a_shell_in_a_job_it_is_submitted_as_from_any,
              ranks_get_what_the_script_exports_with_export_none, names_with_percent_signs_blanks_and_quotes_stay_what_they_are,
              a_job_script_is_submitted_again_from_another_directory, a_partly_finished_array_is_submitted_again_without_what_is_done, too_little_memory_is_a_note_at_submission, data_and_model_are_staged_when_the_site_says_so)
