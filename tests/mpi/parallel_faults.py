"""Usage: parallel_faults.py PROGRAM MPIEXEC. One failing rank must end all ranks, with its message and a non-zero code, without a hang."""
import re
import subprocess
import sys
import unittest

PROGRAM, MPIEXEC = sys.argv[1:3]
SECONDS = 30


def run(how, ranks):
    launch = [MPIEXEC, "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] if ranks else []
    return subprocess.run([*launch, PROGRAM, how], capture_output=True, text=True, timeout=SECONDS)


class OneFailingRank(unittest.TestCase):
    def test_a_healthy_run_ends_with_0(self):
        result = run("well", 4)
        self.assertEqual((result.returncode, result.stdout.strip()), (0, "4 ranks done"), result.stderr)

    def test_a_process_started_without_mpirun_is_alone_and_works(self):
        result = run("well", 0)
        self.assertEqual((result.returncode, result.stdout.strip()), (0, "1 ranks done"), result.stderr)

    def test_ranks_of_one_node_open_no_libraries_of_networks_and_leave_their_environment_as_it_was(self):
        network = re.compile("libpsm|libfabric|libucp|libibverbs")
        alone, two = run("open", 0).stdout, run("open", 2).stdout
        for opened in alone, two:
            self.assertEqual(network.findall(opened), [])
            self.assertNotIn("OMPI_MCA_pml", opened)
        self.assertNotIn("HWLOC_COMPONENTS", alone)
        self.assertNotIn("btl_vader", alone)
        self.assertIn("btl_vader", two)  # shared memory

    def test_a_rank_that_throws_ends_all_with_its_message_and_code(self):
        for ranks in (2, 4):
            result = run("throw", ranks)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn(f"[rank {ranks - 1}/{ranks}] weights.bin: row 7 is damaged", result.stderr)

    def test_a_rank_that_is_killed_ends_all(self):
        for ranks in (2, 4):
            result = run("kill", ranks)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("signal 9", result.stderr)

    def test_an_agreed_mistake_is_reported_once_and_ends_all_with_2(self):
        result = run("agree", 4)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(result.stderr.count("rank 3 of 4: data.h5: cannot be read"), 1, result.stderr)

    def test_groups_that_do_not_fail_end_with_0(self):
        result = run("group-well", 4)
        self.assertEqual((result.returncode, result.stdout.strip()), (0, "4 ranks done"), result.stderr)

    def test_what_a_group_agrees_on_is_reported_once_and_ends_the_other_groups(self):
        result = run("group-agree", 4)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(result.stderr.count("data.h5: cannot be read"), 1, result.stderr)
        self.assertIn("rank 3 of 4: data.h5: cannot be read", result.stderr)

    def test_a_rank_that_fails_while_its_group_waits_ends_all(self):
        for how, code, message in (("group-throw", 2, "weights.bin: row 7 is damaged"), ("group-fault", 3, "map::at")):
            result = run(how, 4)
            self.assertEqual(result.returncode, code, result.stderr)
            self.assertIn("[rank 3/4] " + message, result.stderr)

    def test_a_rank_that_is_killed_while_its_group_waits_ends_all(self):
        result = run("group-kill", 4)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("signal 9", result.stderr)

    def test_a_rank_that_keeps_its_group_waiting_is_named(self):
        result = run("group-late", 4)
        self.assertEqual(result.returncode, 3, result.stderr)
        self.assertIn("rank 3 on", result.stderr)
        self.assertNotIn("rank 2 on", result.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
