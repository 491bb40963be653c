"""docs/slurm.md word for word, on a real Slurm cluster of virtual nodes, as an ordinary user: every block of the page is read from it, and tried.

    page_test.py BUILD_FOLDER

The folder looks like the checkout after its first commands, but that a tiny model and tiny data lie under the names of SmolLM2 and FOLDOC.
"""
import json
import re
import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from tiny import RUN, Workplace, check, make_model, make_recipe, paced
from cluster import Cluster, history, source

build = Path(sys.argv[1]).resolve()
place = Workplace(build / "tests" / "page")
cluster = Cluster(build, place, "--nodes", "3", "--mode", "plain", as_user=True)


def blocks_of(page):
    """Its indented blocks, in order."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", page, re.MULTILINE)
    return [textwrap.dedent(block).strip() + "\n" for block in found if block.strip()]


class Page:
    """Blocks are taken one after another: a block that is new, gone or elsewhere ends the test."""

    def __init__(self, file):
        self.text = file.read_text()
        self.blocks = blocks_of(self.text)

    def take(self, start):
        check(self.blocks, f"the page goes on with '{start}'")
        block = self.blocks.pop(0)
        check(block.startswith(start), f"the next block of the page begins with '{start}':\n{block}")
        print(f"-- {block}", end="", flush=True)
        return block


def job_in(said):
    return re.search(r"job (?:array )?(\d+)", said)[1]


def shell(block, **more):
    return cluster.run("bash", "-e", "-o", "pipefail", "-c", block, timeout=300, **more)


def without(block, *starts):
    """What a test must not do again: it is done before tests run, and changes the machine or the checkout."""
    lines = block.splitlines()
    check(all(any(line.startswith(start) for line in lines) for start in starts), f"{starts} are in\n{block}")
    return "\n".join(line for line in lines if not line.startswith(starts)) + "\n"


def before_the_first_job():
    shell(without(page.take("launchers/setup"), "launchers/setup", "launchers/fetch"))
    check((place / "data/foldoc.h5").exists(), "the data are prepared")
    said = shell(page.take("srun --mpi=pmix --nodes=2 --ntasks=2 attune doctor"))
    check("started: 2 ranks, srun, job" in said, said)


def submit():
    said = shell(page.take("attune submit datasets/foldoc/quickstart.toml name=on-slurm"))
    number = job_in(said)
    answer = page.take("job 12 is queued")
    check(said == answer.replace("job 12", f"job {number}").replace("slurm-12", f"slurm-{number}"), f"it answers as the page has it:\n{said}\n{answer}")
    cluster.wait_for_end(number)
    check(history(place, "on-slurm") == ["started", "finished"], "it is done")

    (place / "asked.toml").write_text(RUN + page.take("[slurm]\nnodes = 2"))
    script = shell("attune submit asked.toml --print")
    for words in ("--nodes=2", "--cpus-per-task=2", "--time=01:00:00", "--partition=main", '--comment="any other option of sbatch, as it is"'):
        check(words in script, f"'{words}' is asked of Slurm:\n{script}")
    check("runs/on-slurm  done" in shell(page.take("attune status ")), "status tells")

    (place / "more.toml").write_text(RUN + page.take("[slurm]\noptions = { switches"))
    script = shell("attune submit more.toml --print")
    check("#SBATCH --switches=1\n" in script and 'srun --mpi=pmix --kill-on-bad-exit=1 --cpu-bind="cores" ' in script, f"both commands have their options:\n{script}")

    (place / "array.toml").write_text(RUN + page.take("[slurm]\narray = \"0-9%3\""))
    said = shell("attune submit array.toml name=on-slurm")
    check("10 runs" in said and (place / "runs/on-slurm-0/run.toml").exists() and (place / "runs/on-slurm-9/run.toml").exists(), said)
    cluster.run("scancel", job_in(said))


def a_site_file():
    (place / "here.toml").write_text('scratch = "/tmp"\n[slurm]\npartition = "main"\n')
    script = shell(page.take("attune submit run.toml --site NAME").replace("NAME", "./here.toml").replace("--site ./here.toml", "--site ./here.toml --print"))
    check("--partition=main" in script, f"the site has its say: {script}")


def sweeps():
    (place / "rates.toml").write_text(page.take('name = "rates"'))
    commands = page.take("attune sweep rates.toml")
    in_allocation = page.take("#!/bin/bash")
    halving = page.take("[halving]")
    begin, status, report = commands.splitlines()
    said = shell(begin)
    check("18 trials, 3 at a time" in said, f"what is queued: {said}")
    named = re.search(r"`(sweeps/rates/.*=.*)`", page.text)[1]
    check((place / named).is_dir(), f"a trial has the name that the page has, {named}: {list((place / 'sweeps/rates').iterdir())}")
    cluster.wait_for(lambda: "18 trials: 18 done" in shell(status), "all trials are done", 300)
    check("learning_rate" in shell(report) and (place / "sweeps/rates/results.csv").exists(), "the table")
    with open(place / "rates.toml", "a") as file:
        file.write(halving)
    check("18 of 18 trials are already done" in shell(begin), "with halving in the file, and nothing left to do")
    sweep_in_an_allocation(in_allocation)


def sweep_in_an_allocation(script):
    (place / "inside.sbatch").write_text(script.replace("rates.toml", "inside.toml"))
    (place / "slow.toml").write_text(paced(RUN, build, 20))
    (place / "inside.toml").write_text('name = "inside"\nrun = "slow.toml"\n[values]\n"train.steps" = [200]\n"strategy.rank" = [2, 4]\n')
    number = shell("sbatch inside.sbatch").split()[-1]
    logs = [place / f"sweeps/inside/rank={rank},steps=200/metrics.jsonl" for rank in (2, 4)]
    cluster.wait_for(lambda: all(log.exists() and log.read_text().count('"step_end"') >= 5 for log in logs), "both trials run")
    cluster.run("scancel", "--signal=TERM", number)
    cluster.wait_for_end(number, seconds=300)
    for log in logs:
        what = [entry["what"] for entry in json.loads((log.parent / "record.json").read_text())["history"]]
        check(what == ["started", "interrupted", "resumed", "finished"], f"it goes on by itself: {what}")


def your_own_job_script():
    (place / "run.toml").write_text(paced(RUN.replace("steps = 12", 'steps = 300\nschedule = "constant"'), build, 10))
    number = shell(page.take("sbatch slurm/templates/srun.sbatch")).split()[-1]
    cluster.wait_for_end(number)
    check(history(place, "by-hand")[-1] == "finished", "it is done")

    least = page.take("srun --mpi=pmix --kill-on-bad-exit=1 attune train run.toml --resume")
    (place / "least.sbatch").write_text("#!/bin/bash\n#SBATCH --nodes=2 --output=slurm-%j.log --open-mode=append\n" + least)
    number = shell("sbatch least.sbatch").split()[-1]
    cluster.wait_for_steps(number, "run")
    cluster.run("scancel", "--signal=TERM", number)
    cluster.wait_for_end(number)
    check(history(place, "run") == ["started", "interrupted", "resumed", "finished"], f"it goes on by itself: {history(place, 'run')}")


def what_the_page_says_on_its_lines():
    """A job that is preempted and a node that dies, as the last section has them."""
    for words in ("sbatch --partition=urgent --nodes=3 --exclusive --wrap='sleep 10'", "slurm/testcluster/node poweroff n2", "node start n2"):
        check(f"`{words}`" in page.text, f"the page says {words}")
    number = job_in(shell("attune submit run.toml name=hit slurm.nodes=2 checkpoint.every=20"))
    cluster.wait_for_steps(number, "hit")
    shell("sbatch --output=/dev/null --partition=urgent --nodes=3 --exclusive --wrap='sleep 10'")
    cluster.wait_for(lambda: cluster.job(number)["Restarts"] == "1", "it gives way")
    cluster.wait_for_end(number)
    shell("slurm/testcluster/node poweroff n2")
    shell("slurm/testcluster/node start n2")
    cluster.wait_for(lambda: "n[1-3]" in shell("sinfo --partition=main --states=idle --noheader"), "the node is back")


def a_cluster_on_your_own_machine():
    block = "trap slurm/testcluster/down EXIT\n" + without(page.take("launchers/setup --tests"), "launchers/setup")
    said = place.run(*cluster.command("env", f"ATTUNE_CLUSTER={cluster.folder}-own", "bash", "-e", "-c", block), timeout=300)
    for words in ("3   idle", "started: 3 ranks, srun, job", "the result is in runs/tried/adapter", "runs/tried"):
        check(words in said, f"'{words}' is said: {said}")
    check(not page.blocks, f"blocks that nobody tries: {page.blocks}")


page = Page(source / "docs/slurm.md")
for name in ("build", "launchers", "slurm"):
    (place / name).symlink_to(build if name == "build" else source / name)
(place / "datasets/foldoc").mkdir(parents=True)
make_model(place / "model")
make_recipe(place)
recipe = (place / "sums.toml").read_text().replace('"sums.h5"', '"data/foldoc.h5"')
(place / "datasets/foldoc/recipe.toml").write_text(re.sub('"(data/foldoc.h5|sums.jsonl|model)"', r'"../../\1"', recipe))
RUN = RUN.replace("sums.h5", "data/foldoc.h5").replace("steps = 6", "steps = 12")  # more than the page's first comparison
(place / "datasets/foldoc/quickstart.toml").write_text(RUN)
(place / "run.toml").write_text(RUN)
with cluster:
    before_the_first_job()
    submit()
    a_site_file()
    sweeps()
    your_own_job_script()
    what_the_page_says_on_its_lines()
a_cluster_on_your_own_machine()
