"""A real Slurm cluster of virtual nodes (slurm/testcluster) for tests that submit jobs to it."""
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from tiny import check, environment

source = Path(__file__).resolve().parents[2]
testcluster = source / "slurm/testcluster"
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL"}


class Cluster:
    """with Cluster(build, place, "--nodes", 3): ... The cluster is stopped at the end, whatever happens, and nothing is left of it.

    as_user: everything is done as an ordinary user, also when root runs the test.
    """

    def __init__(self, build, place, *options, as_user=False):
        self.place, self.options = place, options
        self.user = "backup" if as_user and os.getuid() == 0 else None  # one that every Debian has
        # One folder for a build folder and test: a cluster that an aborted test left is found and stopped.
        self.folder = Path("/tmp/attune-test-" + hashlib.sha256(f"{build} {place.folder}".encode()).hexdigest()[:8])
        environment.update({"ATTUNE_CLUSTER": str(self.folder), "PATH": f"{build}:{environment['PATH']}"})

    def command(self, *command):
        """As that user: groups and home as well."""
        if not self.user:
            return command
        return ("setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", "env", "HOME=/tmp", f"USER={self.user}", f"LOGNAME={self.user}", *command)

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the cluster is stopped as well
        if self.user:
            shutil.chown(self.place.folder, self.user)
            self.place.run("chown", "-R", self.user, self.place.folder)
        self.place.run(testcluster / "down")
        try:
            print(self.place.run(*self.command(testcluster / "up", *self.options)), flush=True)
        except BaseException:
            self.place.run(testcluster / "down")
            raise
        self.settings = dict(line.split("=", 1) for line in (self.folder / "settings").read_text().split())
        return self

    def __exit__(self, kind, *_):
        if kind and os.environ.get("ATTUNE_KEEP_CLUSTER"):
            return
        self.place.run(testcluster / "down")
        if not kind:
            self.wait_for(lambda: not self.left_behind(), lambda: f"the cluster leaves nothing behind, but {self.left_behind()}", 20)

    def left_behind(self):
        left = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"ATTUNE_CLUSTER={self.folder}\0".encode() in (process / "environ").read_bytes() and process.name != str(os.getpid()):
                    left.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                pass  # it ended just now
        left += [str(path) for pattern in (f"{self.folder.name}*", "ompi.n[0-9].*", "spmix_appdir_*") for path in Path("/tmp").glob(pattern)]
        left += [str(path) for path in Path("/sys/class/net").glob(f"{self.settings['bridge']}*")]
        return left

    def run(self, *command, **more):
        """A command in the shell of somebody who uses the cluster."""
        return self.place.run(*self.command("bash", "-c", 'source "$0" && exec "$@"', testcluster / "env.sh", *command), **more)

    def start(self, *command):
        return self.place.start(*self.command("bash", "-c", 'source "$0" && exec "$@"', testcluster / "env.sh", *command))

    def node(self, action, name):
        self.place.run(*self.command(testcluster / "node", action, name))

    def job(self, number):
        return dict(pair.split("=", 1) for pair in self.run("scontrol", "-o", "show", "job", number).split() if "=" in pair)

    def log(self, number):
        # os.walk, and not glob: folders of checkpoints come and go meanwhile.
        logs = sorted(Path(folder) / file for folder, _, files in os.walk(self.place.folder) for file in files if file.endswith(f"-{number}.log"))
        return "\n".join(path.read_text() for path in logs)

    def wait_for(self, condition, what, seconds=90):
        end = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() >= end:
                check(False, f"{what() if callable(what) else what} within {seconds} s")
            time.sleep(0.1)
        return value

    def wait_for_end(self, number, state="COMPLETED", seconds=120):
        def ended():
            now = self.job(number)
            return now if now["JobState"] in FINAL else None
        now = self.wait_for(ended, lambda: f"job {number} ends; its log:\n{self.log(number)}", seconds)
        check(now["JobState"] == state, f"job {number} is {state}, and not {now['JobState']}:\n{self.log(number)}")
        return now

    def wait_for_steps(self, number, run, steps=5, seconds=90):
        self.wait_for(lambda: self.place.steps_done(run) >= steps, lambda: f"job {number} takes {steps} steps; its log:\n{self.log(number)}", seconds)


def run_tests(*tests):
    """All, or those named on the command line."""
    named = sys.argv[2:]
    for test in (test for test in tests if not named or test.__name__ in named):
        started = time.monotonic()
        test()
        print(f"ok {test.__name__} ({time.monotonic() - started:.1f} s)", flush=True)


def history(place, run):
    return [entry["what"] for entry in json.loads((place / f"runs/{run}/record.json").read_text())["history"]]


def adapter(place, run):
    return (place / f"runs/{run}/adapter/adapter_model.safetensors").read_bytes()


def ranks_of_job(number):
    """Process ids; on this host are all nodes of the plain cluster."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() == "attune" and f"\0SLURM_JOB_ID={number}\0".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            pass  # it ended just now
    return found
