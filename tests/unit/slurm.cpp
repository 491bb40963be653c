// Job scripts, site files, what is read from Slurm's commands, and the state of a run.
#include "errors.hpp"
#include "slurm/script.hpp"

#include <attune/error.hpp>
#include <gmock/gmock.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>

#include "core/files.hpp"
#include "run_directory/lock.hpp"
#include "run_directory/progress.hpp"
#include "slurm/command.hpp"
#include "slurm/environment.hpp"
#include "slurm/launch.hpp"
#include "slurm/queue.hpp"
#include "slurm/reasons.hpp"
#include "slurm/run_state.hpp"
#include "slurm/staging.hpp"
#include "slurm/submission.hpp"

namespace attune::slurm {
namespace {

namespace fs = std::filesystem;
using config::Document;
using config::SlurmOptions;
using run_directory::Holder;
using run_directory::Life;
using run_directory::read_progress;
using run_directory::RunLock;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// A folder of its own, removed at the end.
class Slurm : public testing::Test {
 protected:
  Slurm() : folder_(fs::temp_directory_path() / fmt::format("attune-unit-slurm-{}", ::getpid())) {
    fs::create_directories(folder_);
  }
  ~Slurm() override { fs::remove_all(folder_); }

  fs::path write(const std::string& name, const std::string& text) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
    return folder_ / name;
  }

  Site site(const std::string& text) const {
    return read_site(write("site.toml", text).string(), {});
  }

  fs::path folder_;
};

SlurmOptions options(const std::string& toml, const Site& site = {}) {
  return options_at(site, Document::parse_text("[slurm]\n" + toml, "run.toml"));
}

Job job(SlurmOptions options, Site site = {}) {
  return {.name = "glossary",
          .written_by = "attune submit run.toml",
          .from = "/home/me/project",
          .program = "/opt/attune/bin/attune",
          .program_files = {"/opt/attune/bin/attune", "/opt/attune/lib/libattune.so.0",
                            "/opt/attune/lib/attune/plugins"},
          .directory = "/home/me/project/runs/glossary",
          .script = "/home/me/project/runs/glossary/job.sbatch",
          .log = "/home/me/project/runs/glossary/slurm-%j.log",
          .train_options = {},
          .options = std::move(options),
          .site = std::move(site),
          .array = std::nullopt};
}

/// ATTUNE_WRITE_GOLDEN=1 writes the copies anew.
void expect_golden(const std::string& script, const std::string& name) {
  const auto file = fs::path(ATTUNE_SOURCE_DIR) / "tests/unit/golden" / name;
  if (std::getenv("ATTUNE_WRITE_GOLDEN")) std::ofstream(file) << script;
  EXPECT_EQ(script, read_text(file)) << "differs from " << file;
}

// ---- Job scripts

TEST_F(Slurm, AScriptOfDefaultsIsTheGoldenOne) {
  expect_golden(job_script(job({})), "plain.sbatch");
}

TEST_F(Slurm, AScriptWithEverythingIsTheGoldenOne) {
  const auto here = site(R"(
about = "a cluster with everything"
scratch = "/scratch/$SLURM_JOB_ID"
stage = ["data", "model", "program"]
partitions = { gpu = "accelerated" }
[slurm]
account = "hk-project"
modules = ["gcc/12", "openmpi/4.1"]
environment = { UCX_TLS = "rc,self,sm", TMPDIR = "$HOME/tmp" }
)");
  const auto wanted = options(R"(
nodes = 2
tasks_per_node = 4
gpus_per_node = 4
cpus_per_task = 8
memory = "200G"
time = "1-00:00:00"
partition = "gpu"
qos = "long"
constraint = "a100&ib"
reservation = "course"
dependency = "afterok:77"
mail_type = "END,FAIL"
mail_user = "me@example.org"
options = { exclusive = "", switches = "1@10:00", comment = "the second try" }
modules = ["hdf5"]
lines = ["ulimit -c 0"]
signal = 300
restarts = 20
stalled = 3
)",
                              here);
  expect_golden(job_script(job(wanted, here)), "everything.sbatch");
}

TEST_F(Slurm, AScriptForMpirunIsTheGoldenOne) {
  expect_golden(job_script(job(options("launcher = \"mpirun\"\nnodes = 2"))), "mpirun.sbatch");
}

TEST_F(Slurm, EveryRankSeesAllGpusOfItsNodeUnlessTheUserBindsThem) {
  const auto script = [&](const std::string& more) {
    return job_script(job(options("tasks_per_node = 2\ngpus_per_node = 2\n" + more)));
  };
  const auto none = HasSubstr("unset \"${!SLURM_GPU_BIND@}\"");
  EXPECT_THAT(script(""), AllOf(HasSubstr("#SBATCH --gpus-per-node=2\n"), none));
  EXPECT_THAT(script("launcher = \"mpirun\""), none);
  EXPECT_THAT(script("options = { exclusive = \"\" }"), none);
  EXPECT_THAT(job_script(job({})), Not(HasSubstr("GPU_BIND")));
  EXPECT_THAT(script("options = { gpu-bind = \"closest\" }"),
              AllOf(Not(none), HasSubstr("#SBATCH --gpu-bind=closest\n")));
  EXPECT_THAT(script("srun_options = { gpu-bind = \"single:1\" }"),
              AllOf(Not(none), HasSubstr(" --gpu-bind=\"single:1\" ")));
  EXPECT_THAT(script("srun_options = { gpus-per-task = \"1\" }"),
              AllOf(Not(none), HasSubstr(" --gpus-per-task=\"1\" ")))
      << "which binds each rank to its own";
}

TEST_F(Slurm, AScriptForAnArrayIsTheGoldenOne) {
  auto wanted = job(options("retries = 1"));
  const fs::path sweep = "/home/me/project/sweeps/rates";
  wanted.directory = sweep;
  wanted.script = sweep / "arrays/0001.sbatch";
  wanted.log = sweep / "arrays/0001-%a.log";
  wanted.train_options = {"--sweep", sweep.string()};
  wanted.array = Array{"0-11%3", 12, sweep / "arrays/0001.trials"};
  expect_golden(job_script(wanted), "array.sbatch");
}

TEST_F(Slurm, AScriptForTheElementsOfAnArrayIsTheGoldenOne) {
  auto wanted = job(options("array = \"1,3,5-9:2%2\""));
  wanted.script = "/home/me/project/runs/glossary.sbatch";
  wanted.log = "/home/me/project/runs/glossary-%a/slurm-%A_%a.log";
  wanted.array = Array{wanted.options.array, 5, {}};
  expect_golden(job_script(wanted), "elements.sbatch");
}

TEST_F(Slurm, EveryScriptIsGoodShell) {
  auto odd =
      job(options("environment = { A = 'a \"b\" `c`' }\nlauncher = \"mpirun\"\nretries = 2"));
  odd.directory = "/tmp/runs/it's mine";
  odd.from = "/tmp/half 50% \"of\" $HOME";
  odd.written_by = "attune submit " + shell_word("two\nlines");
  odd.site.options.scratch = "/tmp/my scratch";
  odd.site.options.stage = {"program"};
  for (const auto& script : {job_script(job({})), job_script(odd)}) {
    const auto said = run_command({"bash", "-n", write("job.sbatch", script).string()});
    EXPECT_EQ(said.code, 0) << said.err << script;
  }
}

TEST_F(Slurm, WordsReachTheShellAsTheyAre) {
  for (const std::string word :
       {"plain", "two words", "it's", "$HOME", "a;b", "*", "50%", "back\\slash", "\"quoted\"",
        "two\nlines and 'one' \\ more", "naïve", "-x"}) {
    const auto said = run_command({"bash", "-c", "printf '%s' " + shell_word(word)});
    EXPECT_EQ(said.out, word);
    EXPECT_EQ(shell_word(word).find('\n'), std::string::npos) << "on one line of the script";
  }
}

/// A script whose ranks are another command.
std::string with_srun(const std::string& command, std::string script) {
  const auto at = script.find("\nsrun --mpi") + 1;
  return script.replace(at, script.find('\n', at) - at, command);
}

/// The part of a script that counts attempts, run as it would be, with a stand-in for srun.
TEST_F(Slurm, AJobThatMakesNoProgressTwiceEnds) {
  auto wanted = job({});
  wanted.directory = folder_ / "run";
  wanted.from = folder_;
  const auto file = write("job.sbatch", with_srun("true", job_script(wanted)));
  const auto attempt = [&] {
    return run_command({"env", "SLURM_JOB_ID=5", "bash", file.string()});
  };
  EXPECT_EQ(attempt().code, 0);
  EXPECT_EQ(attempt().code, 0);
  const auto third = attempt();
  EXPECT_EQ(third.code, 1);
  EXPECT_THAT(third.out, HasSubstr("2 attempts made no progress, from the beginning"));
  fs::create_directories(folder_ / "run/checkpoints/step-000010");
  EXPECT_EQ(attempt().code, 0) << "a newer checkpoint is progress";
  EXPECT_EQ(attempt().code, 0);
  EXPECT_EQ(attempt().code, 1);
}

TEST_F(Slurm, CheckpointsCountByTheirNumbers) {
  auto wanted = job({});
  wanted.directory = folder_ / "run";
  wanted.from = folder_;
  for (const char* name : {"step-999999", "step-1000000", "step-000500"})
    fs::create_directories(folder_ / "run/checkpoints" / name);
  run_command({"env", "SLURM_JOB_ID=5", "bash",
               write("job.sbatch", with_srun("true", job_script(wanted))).string()});
  EXPECT_THAT(read_text(folder_ / "run/attempts"), HasSubstr(" step-1000000\n"));
}

/// A script whose ranks print their environment and where they are, run in another folder and with
/// these variables.
class Surroundings : public Slurm {
 protected:
  Said run(const SlurmOptions& wanted, const std::vector<std::string>& variables = {},
           const Site& here = {}) {
    auto one = job(wanted, here);
    one.directory = folder_ / "run";
    one.from = folder_;
    std::vector<std::string> command{"env", "-C", "/", "SLURM_JOB_ID=5", "SLURM_CPUS_PER_TASK=3"};
    command.insert(command.end(), variables.begin(), variables.end());
    command.insert(
        command.end(),
        {"bash", write("job.sbatch", with_srun("/usr/bin/env; pwd", job_script(one))).string()});
    return run_command(command);
  }
};

TEST_F(Surroundings, RanksStartWhereTheJobWasSubmitted) {
  EXPECT_TRUE(run({}).out.ends_with("\n" + folder_.string() + "\n"));
  auto gone = job({});
  gone.from = folder_ / "not there";
  const auto said = run_command({"bash", write("job.sbatch", job_script(gone)).string()});
  EXPECT_EQ(said.code, 2);
  EXPECT_THAT(said.err, HasSubstr("it must be on a file system that all nodes share"));
}

TEST_F(Surroundings, WhatTheShellOfTheSubmissionBroughtDoesNotReachTheSteps) {
  const auto said = run({}, {"SLURM_EXPORT_ENV=NONE", "SLURM_CPU_BIND=quiet,mask_cpu:0x1",
                             "SLURM_CPU_BIND_TYPE=mask_cpu:", "SLURM_TIME_FORMAT=relative"});
  EXPECT_THAT(said.out,
              AllOf(Not(HasSubstr("SLURM_EXPORT_ENV")), Not(HasSubstr("SLURM_CPU_BIND")),
                    Not(HasSubstr("SLURM_TIME_FORMAT")), HasSubstr("OMP_NUM_THREADS=3\n")));
}

TEST_F(Surroundings, VariablesHaveTheirValuesWhateverIsInThem) {
  const auto said = run(
      options(
          R"(environment = { A = 'say "hi" to c:\new', B = '$FROM/x', C = '\$FROM', D = '$(echo run) `echo run`', E = 'naïve 50% #5' })"),
      {"FROM=there"});
  EXPECT_THAT(said.out, AllOf(HasSubstr("A=say \"hi\" to c:\\new\n"), HasSubstr("B=there/x\n"),
                              HasSubstr("C=$FROM\n"), HasSubstr("D=$(echo run) `echo run`\n"),
                              HasSubstr("E=naïve 50% #5\n")));
}

TEST_F(Surroundings, AModuleThatIsMissingEndsTheJob) {
  const auto said = run(options("modules = [\"gcc/12 openmpi\", \"no-such-module\"]"));
  EXPECT_EQ(said.code, 2) << "as a mistake, which is not tried again";
  EXPECT_THAT(said.err, HasSubstr("these modules cannot be loaded on "));
  EXPECT_THAT(said.out, Not(HasSubstr("OMP_NUM_THREADS")));
}

TEST_F(Surroundings, AMissingTmpdirGetsASentence) {
  const auto said = run({}, {"TMPDIR=/nowhere/of/job/4"});
  EXPECT_THAT(said.err, HasSubstr("TMPDIR is /nowhere/of/job/4, and there is no such folder on "));
  EXPECT_THAT(said.out, HasSubstr("TMPDIR=/tmp\n"));
}

TEST_F(Surroundings, AScratchWhoseVariableIsNotSetEndsTheJob) {
  const auto here = site("scratch = \"$NO_SUCH_SCRATCH/x\"\nstage = [\"data\"]");
  const auto said = run({}, {}, here);
  EXPECT_EQ(said.code, 2);
  EXPECT_THAT(said.err, AllOf(HasSubstr("scratch of the site file is $NO_SUCH_SCRATCH/x"),
                              HasSubstr("not set in this job")));
  EXPECT_THAT(run({}, {"NO_SUCH_SCRATCH=/tmp/fast disk"}, here).out,
              HasSubstr("ATTUNE_SCRATCH=/tmp/fast disk/x\n"));
}

TEST_F(Slurm, APercentSignInAFolderIsNoPattern) {
  EXPECT_EQ(log_pattern("/a/half 50%a/100%%"), "/a/half 50%%a/100%%%%");
  EXPECT_THAT(error_of([] { log_pattern("/a/b\\c"); }),
              HasSubstr("cannot write a log to a path with a backslash"));
}

TEST_F(Slurm, OptionsOfSrunStandBeforeTheProgram) {
  const auto script =
      job_script(job(options("srun_options = { \"cpu-bind\" = \"cores\", \"container-image\" = "
                             "\"$HOME/my image.sqsh\", label = \"\" }")));
  EXPECT_THAT(script, HasSubstr("srun --mpi=pmix --kill-on-bad-exit=1 --container-image=\"$HOME/my "
                                "image.sqsh\" --cpu-bind=\"cores\" --label \"$attune\" train"));
}

/// A job whose program is staged, with stand-ins for the program, which tells from where it runs,
/// and for srun.
class StagedProgram : public Slurm {
 protected:
  StagedProgram() {
    write_program("bin/srun", "while [[ $1 == --* ]]; do shift; done; exec \"$@\"");
    write_program(
        "here/attune",
        "echo \"$0 $LD_LIBRARY_PATH\"; cd \"$(dirname \"$0\")\" && find . -type f | sort");
    write("here/lib/libattune.so.0.1.0", "code");
    fs::create_symlink("libattune.so.0.1.0", folder_ / "here/lib/libattune.so.0");
    write("here/plugins/lora.so", "code");
  }
  void write_program(const std::string& name, const std::string& text) const {
    fs::permissions(write(name, "#!/bin/bash\n" + text + "\n"), fs::perms::owner_all);
  }

  Said run() const {
    auto wanted = job({}, site("scratch = \"" + folder_.string() +
                               "/scratch/$SLURM_JOB_ID\"\nstage = [\"program\"]"));
    wanted.directory = folder_ / "run";
    wanted.from = folder_;
    wanted.program = folder_ / "here/attune";
    wanted.program_files = {wanted.program, folder_ / "here/lib/libattune.so.0",
                            folder_ / "here/plugins"};
    const auto path = "PATH=" + (folder_ / "bin").string() + ":" + std::getenv("PATH");
    return run_command({"env", "-u", "LD_LIBRARY_PATH", path, "SLURM_JOB_ID=5",
                        "SLURM_JOB_NUM_NODES=1", "bash",
                        write("job.sbatch", job_script(wanted)).string()});
  }
};

TEST_F(StagedProgram, RunsFromScratchAndIsRemoved) {
  const auto said = run();
  const auto there = (folder_ / "scratch/5/attune-5").string();
  EXPECT_EQ(said.code, 0) << said.err;
  EXPECT_EQ(said.out,
            there + "/attune " + there + "\n./attune\n./libattune.so.0\n./plugins/lora.so\n");
  EXPECT_TRUE(fs::is_empty(folder_ / "scratch/5"));
}

TEST_F(StagedProgram, AFullScratchIsToldBeforeItIsCopied) {
  write_program("bin/df", "echo Avail; echo 1000");
  const auto said = run();
  EXPECT_EQ(said.code, 2) << "it is not tried again";
  EXPECT_THAT(said.err, AllOf(HasSubstr("scratch/5/attune-5 on "),
                              HasSubstr("bytes, and 1000 are free; make room")));
  EXPECT_EQ(said.out, "");
  EXPECT_TRUE(fs::is_empty(folder_ / "scratch/5"));
}

// ---- Launches that fail

/// A job of two nodes with two tasks each, with stand-ins for Slurm's commands. Each call of
/// `attempt` is one start of the job.
class Launches : public Slurm {
 protected:
  Launches() {
    write_program("srun",
                  R"sh(for word in "$@"; do if [ "$word" = --overlap ]; then exit 0; fi; done
case $(cat HERE/launch) in
  fails) echo "srun: error: task $(cat HERE/task) launch failed: Unspecified error" >&2; exit "$(cat HERE/failure)" ;;
  silent) exit 1 ;;
  runs) touch "$ATTUNE_LAUNCHED"; exit "$(cat HERE/code)" ;;
esac)sh");
    write_program("scontrol", R"sh(case "$*" in
  "show hostnames"*) printf 'n1\nn2\n' ;;
  *"show job"*) echo "JobId=5 JobName=x UserId=me JobState=RUNNING Reason=None Requeue=$(cat HERE/requeue) ExcNodeList=$(cat HERE/excluded) PreemptTime=None" ;;
  *) echo "scontrol $*" >>HERE/calls ;;
esac)sh");
    write_program("sbatch", R"sh(echo "sbatch $*" >>HERE/calls
case "$*" in *--test-only*) exit "$(cat HERE/refused)" ;; esac
echo 6)sh");
    set({{"launch", "fails"},
         {"task", "3"},
         {"failure", "1"},
         {"code", "0"},
         {"requeue", "1"},
         {"excluded", "(null)"},
         {"refused", "0"}});
  }

  void set(const std::map<std::string, std::string>& values) {
    for (const auto& [name, value] : values) write(name, value);
  }

  /// Returns the exit code of the script; what it calls and says is in calls_ and said_.
  int attempt(const std::string& more = "") {
    auto one = job(options("nodes = 2\ntasks_per_node = 2\n" + more));
    one.directory = folder_ / "run";
    one.from = folder_;
    one.script = folder_ / "job.sbatch";
    write("job.sbatch", job_script(one));
    const auto path = "PATH=" + (folder_ / "bin").string() + ":" + std::getenv("PATH");
    fs::remove(folder_ / "calls");
    fs::remove(folder_ / "log");
    const auto command = fmt::format("bash {0}/job.sbatch >>{0}/log 2>&1", folder_.string());
    const auto said = run_command({"env", path, "SLURM_JOB_ID=5", "SLURM_JOB_NUM_NODES=2",
                                   "SLURM_JOB_NODELIST=n[1-2]", "bash", "-c", command});
    calls_ = text_of("calls");
    said_ = text_of("log");
    return said.code;
  }

  std::string text_of(const std::string& name) const {
    return fs::exists(folder_ / name) ? read_text(folder_ / name) : "";
  }
  std::size_t lines_in(const std::string& name) const { return lines_of(text_of(name)).size(); }

  std::string calls_;
  std::string said_;

 private:
  void write_program(const std::string& name, const std::string& text) const {
    const auto whole =
        std::regex_replace("#!/bin/bash\n" + text + "\n", std::regex("HERE"), folder_.string());
    fs::permissions(write("bin/" + name, whole), fs::perms::owner_all);
  }
};

TEST_F(Launches, OneThatFailsIsTriedAgainAndANodeThatFailsTwiceIsLeftOut) {
  EXPECT_EQ(attempt(), 1);
  EXPECT_EQ(calls_, "scontrol requeue 5\n");
  EXPECT_THAT(said_, HasSubstr("no rank was launched on n2 (exit code 1): tried again\n"));
  EXPECT_EQ(lines_in("run/attempts"), 0) << "it is no attempt of the run";
  EXPECT_EQ(attempt(), 1);
  EXPECT_EQ(calls_, fmt::format("sbatch --test-only --exclude=n2 {}/job.sbatch\nscontrol requeue "
                                "5\nscontrol update JobId=5 ExcNodeList=n2\n",
                                folder_.string()));
  EXPECT_THAT(said_, HasSubstr("tried again without n2"));
  set({{"launch", "runs"}});
  EXPECT_EQ(attempt(), 0);
  EXPECT_EQ(lines_in("run/attempts"), 1);
  EXPECT_FALSE(fs::exists(folder_ / "run/launches")) << "the next failure is the first in a row";
  EXPECT_FALSE(fs::exists(folder_ / "run/.launched"));
}

/// srun ends the tasks that it did launch with SIGTERM, and returns the largest code of them.
TEST_F(Launches, TasksThatAreEndedBesideOneThatFailedDoNotHideIt) {
  set({{"failure", "143"}});
  EXPECT_EQ(attempt(), 143);
  EXPECT_THAT(said_, HasSubstr("no rank was launched on n2 (exit code 143): tried again\n"));
  set({{"failure", "0"}});  // it waited in vain for the others to end
  EXPECT_EQ(attempt(), 1);
  EXPECT_THAT(said_,
              HasSubstr("no rank was launched on n2 (exit code 1): tried again without n2\n"));
  EXPECT_EQ(lines_in("run/attempts"), 0);
  EXPECT_EQ(lines_in("run/launches"), 2);
}

TEST_F(Launches, ATaskThatIsEndedBeforeItWatchesIsAnAttempt) {
  set({{"launch", "runs"}, {"code", "143"}});
  EXPECT_EQ(attempt(), 143);
  EXPECT_EQ(calls_, "scontrol requeue 5\n");
  EXPECT_EQ(lines_in("run/attempts"), 1);
  EXPECT_FALSE(fs::exists(folder_ / "run/launches"));
}

TEST_F(Launches, SoManyInARowAsStalledAllowsAndThenTheJobEnds) {
  set({{"launch", "silent"}});  // whatever Slurm says of it
  EXPECT_EQ(attempt(), 1);
  EXPECT_EQ(attempt(), 1);
  EXPECT_EQ(calls_, "scontrol requeue 5\n") << "no node is known to have failed";
  EXPECT_EQ(attempt(), 1);
  EXPECT_EQ(calls_, "");
  EXPECT_THAT(said_, HasSubstr("the launch failed 3 times in a row"));
  EXPECT_EQ(lines_in("run/launches"), 3);
}

TEST_F(Launches, DifferentNodesAreNotLeftOut) {
  attempt();
  set({{"task", "1"}});
  attempt();
  EXPECT_THAT(calls_, Not(HasSubstr("ExcNodeList")));
  EXPECT_THAT(said_, HasSubstr("no rank was launched on n1 "));
}

TEST_F(Launches, ANodeThatTheJobCannotDoWithoutStays) {
  set({{"refused", "1"}});
  attempt();
  attempt();
  EXPECT_THAT(calls_, AllOf(HasSubstr("scontrol requeue 5"), Not(HasSubstr("update"))));
  EXPECT_THAT(said_, HasSubstr("the job cannot do without n2"));
}

TEST_F(Launches, WhatTheUserExcludedStaysExcluded) {
  set({{"excluded", "n[7-8]"}});
  attempt();
  attempt();
  EXPECT_THAT(calls_, HasSubstr("ExcNodeList=n[7-8],n2"));
}

TEST_F(Launches, WhereRequeueingIsNotAllowedTheNextJobDoesWithoutTheNode) {
  set({{"requeue", "0"}});
  attempt();
  EXPECT_EQ(text_of("run/jobs"), "6\n") << "status and cancel know the next job";
  attempt();
  EXPECT_THAT(calls_, HasSubstr("sbatch --parsable --dependency=afterany:5 --exclude=n2 "));
}

TEST_F(Launches, ThatFailAreQueuedOnceAlsoWhereFailuresAreRetried) {
  set({{"requeue", "0"}});
  attempt("retries = 1");
  EXPECT_EQ(lines_in("calls"), 1);
  EXPECT_EQ(lines_in("run/jobs"), 1);
}

TEST_F(Launches, AFailureOfTheRunsOwnIsNone) {
  set({{"launch", "runs"}, {"code", "1"}});
  EXPECT_EQ(attempt(), 1);
  EXPECT_EQ(calls_, "");
  EXPECT_EQ(lines_in("run/attempts"), 1);
  EXPECT_FALSE(fs::exists(folder_ / "run/launches"));
}

TEST_F(Launches, TasksInAnotherOrderNameNoNode) {
  attempt("srun_options = { distribution = \"cyclic\" }");
  EXPECT_THAT(text_of("run/launches"), HasSubstr(" unknown\n"));
}

TEST_F(Launches, UnderMpirunTheyAreTriedAgainToo) {
  write("bin/mpirun", "#!/bin/bash\nexit 1\n");
  fs::permissions(folder_ / "bin/mpirun", fs::perms::owner_all);
  EXPECT_EQ(attempt("launcher = \"mpirun\""), 1);
  EXPECT_EQ(calls_, "scontrol requeue 5\n");
}

// ---- [slurm] and sites

TEST_F(Slurm, MistakesAreToldTogetherWithTheirPlaces) {
  const auto said = error_of([] {
    options(
        "nods = 2\ntime = \"soon\"\nmemory = \"much\"\ngpus_per_node = 4\noptions = { mem = "
        "\"5G\", \"--exclusive\" = \"\" }");
  });
  EXPECT_THAT(said, HasSubstr("run.toml:2:1: unknown key 'nods'; did you mean 'nodes'?"));
  EXPECT_THAT(said, HasSubstr("run.toml:3:8: 'time' is 'soon', which is not a time"));
  EXPECT_THAT(said, HasSubstr("run.toml:4:10: 'memory' is 'much'"));
  EXPECT_THAT(said, HasSubstr("run.toml:5:17: 1 ranks and 4 GPUs per node: each rank uses "
                              "one GPU, so set tasks_per_node = 4"));
  EXPECT_THAT(said, HasSubstr("use memory of [slurm]"));
  EXPECT_THAT(said, HasSubstr("'--exclusive' is not a long option of sbatch"));
}

TEST_F(Slurm, AnArrayIsReadAsSbatchReadsIt) {
  using Numbers = std::vector<std::int64_t>;
  EXPECT_EQ(config::array_elements("0-3%2"), (Numbers{0, 1, 2, 3}));
  EXPECT_EQ(config::array_elements("9,1,5-20:5,5"), (Numbers{1, 5, 9, 10, 15, 20}));
  EXPECT_EQ(config::array_elements("7"), Numbers{7});
  for (const char* no : {"", "a", "3-1", "0-9:0", "1,,2", "0-9%0", "1-", "0-99999999"})
    EXPECT_EQ(config::array_elements(no), Numbers{}) << no;
}

TEST_F(Slurm, WhatAnElementSetsHoldsItsNumber) {
  EXPECT_EQ(options("array = \"0-9\"").overrides_of(4), std::vector<std::string>{"seed=4"})
      << "seeds, when nothing is said";
  const auto each = options(
      "array = \"0-9\"\neach = { \"dataset.path\" = \"parts/${SLURM_ARRAY_TASK_ID}.h5\", seed = "
      "\"1$SLURM_ARRAY_TASK_ID\", \"train.steps\" = \"5\" }");
  EXPECT_EQ(each.overrides_of(12),
            (std::vector<std::string>{"dataset.path=parts/12.h5", "seed=112", "train.steps=5"}));
}

TEST_F(Slurm, AnArrayThatMakesNoSenseIsRefusedWithItsPlace) {
  EXPECT_THAT(error_of([] { options("array = \"0..9\""); }),
              HasSubstr("run.toml:2:9: 'array' is '0..9', which is not a job array"));
  EXPECT_THAT(error_of([] { options("each = { seed = \"$SLURM_ARRAY_TASK_ID\" }"); }),
              HasSubstr("'each' needs 'array'"));
  EXPECT_THAT(error_of([] { options("array = \"0-9\"\neach = { seed = \"3\" }"); }),
              HasSubstr("run.toml:3:8: 'each' sets the same values for every element"));
  EXPECT_THAT(
      error_of([] { options("array = \"0-9\"\neach = { name = \"x$SLURM_ARRAY_TASK_ID\" }"); }),
      HasSubstr("'name' in 'each'"));
  EXPECT_THAT(error_of([] { options("options = { array = \"0-9\" }"); }),
              HasSubstr("use array of [slurm]"));
}

TEST_F(Slurm, AnArrayIsWrittenAsSbatchReadsIt) {
  for (const char* text : {"0-3", "1,3-5,9", "7", ""})
    EXPECT_EQ(config::array_text(config::array_elements(text)), text);
  EXPECT_EQ(config::array_text({1, 2, 5, 10, 11, 12}), "1-2,5,10-12");
}

TEST_F(Slurm, OptionsThatContradictTheScriptAreRefused) {
  const std::map<std::string, std::string> refused{
      {"options = { chdir = \"/tmp\" }",
       "'chdir' in 'options' contradicts the job script: relative paths"},
      {"options = { output = \"x.log\" }", "'output' in 'options' contradicts the job script"},
      {"options = { error = \"x.err\" }", "'error' in 'options' contradicts the job script"},
      {"options = { \"open-mode\" = \"truncate\" }", "every attempt appends to the same log"},
      {"options = { wait = \"\" }", "`attune submit --wait`"},
      {"options = { constraint = \"a100\" }", "use constraint of [slurm]"},
      {"options = { gres = \"gpu:a100:4\" }", "use gpus_per_node and gpu_type of [slurm]"},
      {"gpu_type = \"a100\"\ngpus_per_node = 0", "'gpu_type' without GPUs: set gpus_per_node"},
      {"options = { \"tres-per-task\" = \"gres/gpu:1\" }", "GPUs are set in 'tres-per-task'"},
      {"options = { \"gpus-per-socket\" = \"1\" }", "use gpus_per_node of [slurm]"},
      {"options = { gpus = \"4\" }", "use gpus_per_node of [slurm]"},
      {"options = { n = \"4\" }", "'n' is not a long option of sbatch: write the long name"},
      {"memory = \"4G\"\noptions = { \"mem-per-cpu\" = \"1G\" }",
       "'mem-per-cpu' in 'options' and 'memory' contradict each other"},
      {"srun_options = { mpi = \"pmi2\" }", "use mpi of [slurm]"},
      {"srun_options = { output = \"x\" }", "'output' in 'srun_options' contradicts"},
      {"srun_options = { \"--cpu-bind\" = \"x\" }", "'--cpu-bind' is not a long option of srun"},
      {"launcher = \"mpirun\"\nsrun_options = { label = \"\" }", "need launcher = \"srun\""},
      {"account = \"two\\nlines\"", "'account' must be a single line"},
      {"environment = { A = \"two\\nlines\" }", "'environment' must be a single line"},
  };
  for (const auto& [toml, words] : refused)
    EXPECT_THAT(error_of([&] { options(toml); }), AllOf(HasSubstr("run.toml:"), HasSubstr(words)))
        << toml;
  EXPECT_EQ(options("environment = { A = 'C:\\new' }").environment.at("A"), "C:\\new")
      << "a backslash and an n are no line end";
}

TEST_F(Slurm, ATimeThatHoldsNoTrainingIsRefused) {
  EXPECT_THAT(
      error_of([] { options("time = \"2\""); }),
      AllOf(
          HasSubstr(
              "run.toml:2:8: 'time' is '2', but the run is signalled to save 120 s before its end"),
          HasSubstr("lower 'signal'")));
  EXPECT_THAT(error_of([] { options("time = \"00:05:00\"\nsignal = 300"); }),
              HasSubstr("it would never train"));
  for (const char* fits :
       {"time = \"3\"", "time = \"1\"\nsignal = 10", "time = \"0\"", "signal = 9000"})
    EXPECT_EQ(options(fits).nodes, 1) << fits;
}

TEST_F(Slurm, MemoryIsReadAsSbatchReadsIt) {
  EXPECT_EQ(config::memory_bytes("500M"), 500.0 * (1 << 20));
  EXPECT_EQ(config::memory_bytes("500"), 500.0 * (1 << 20));
  EXPECT_EQ(config::memory_bytes("2G"), 2147483648.0);
  EXPECT_EQ(config::memory_bytes(""), 0);
}

TEST_F(Slurm, ARunFileSpeaksLouderThanTheSiteAndListsAddUp) {
  const auto here = site(
      "partitions = { gpu = \"accelerated\" }\n[slurm]\npartition = \"gpu\"\naccount = "
      "\"ours\"\nnodes = 3\nmodules = [\"gcc\"]\nenvironment = { A = \"1\", B = \"1\" }");
  const auto merged =
      options("nodes = 2\nmodules = [\"gcc\", \"hdf5\"]\nenvironment = { A = \"2\" }", here);
  EXPECT_EQ(merged.nodes, 2);
  EXPECT_EQ(merged.account, "ours");
  EXPECT_EQ(merged.partition, "accelerated");
  EXPECT_EQ(merged.modules, (std::vector<std::string>{"gcc", "hdf5"}));
  EXPECT_EQ(merged.environment, (OptionMap{{"A", "2"}, {"B", "1"}}));
}

TEST_F(Slurm, ASiteFileWithAnUnknownKeyIsRefusedWithItsPlace) {
  EXPECT_THAT(error_of([&] { site("scrach = \"/scratch\""); }),
              AllOf(HasSubstr("site.toml:1:1: unknown key 'scrach'; did you mean 'scratch'?")));
  EXPECT_THAT(error_of([&] { site("[slurm]\npartitoin = \"x\""); }),
              HasSubstr("site.toml:2:1: unknown key 'partitoin'"));
  EXPECT_THAT(error_of([&] { site("account = \"ours\""); }),
              HasSubstr("site.toml:1:1: unknown key 'account'; 'account' belongs to [slurm]"));
  EXPECT_THAT(error_of([&] { site("[slurm]\nscratch = \"/tmp\""); }),
              HasSubstr("'scratch' belongs to the top of the site file, before [slurm]"));
  EXPECT_THAT(error_of([&] { site("stage = [\"data\"]"); }), HasSubstr("'stage' needs 'scratch'"));
}

TEST_F(Slurm, ASiteIsFoundByNameAndAMisspelledOneIsGuessed) {
  write("sites/alps.toml", "about = \"x\"");
  EXPECT_EQ(read_site("alps", {folder_ / "sites"}).options.about, "x");
  EXPECT_THAT(error_of([&] { read_site("alsp", {folder_ / "sites"}); }),
              HasSubstr("there is no site 'alsp'; did you mean 'alps'?"));
  EXPECT_THAT(error_of([&] { read_site("./none.toml", {}); }),
              HasSubstr("there is no such site file"));
}

TEST_F(Slurm, OnesOwnSitesAreFoundFirst) {
  ::setenv("XDG_CONFIG_HOME", (folder_ / "config").c_str(), 1);
  write("config/attune/sites/mine.toml", "about = \"mine\"");
  EXPECT_EQ(read_site("mine", site_folders()).options.about, "mine");
  ::unsetenv("XDG_CONFIG_HOME");
  ::setenv("HOME", folder_.c_str(), 1);
  EXPECT_EQ(site_folders().front(), folder_ / ".config/attune/sites");
}

TEST_F(Slurm, TheSitesThatComeWithAttuneAreInOrder) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(ATTUNE_SOURCE_DIR) / "slurm/sites")) {
    if (entry.path().extension() == ".toml") {
      read_site(entry.path().string(), {});
      ++count;
    }
  }
  EXPECT_GT(count, 0);
}

// ---- What Slurm's commands say

TEST_F(Slurm, RefusalsAreExplainedWithTheKeyToChange) {
  const auto said = explain_refusal(
      "sbatch: error: invalid partition specified: nowhere\nallocation failure: Invalid partition "
      "name specified\n",
      options("partition = \"nowhere\""));
  EXPECT_THAT(said,
              AllOf(HasSubstr("Slurm rejects the job: Invalid partition name specified"),
                    HasSubstr("set slurm.partition, which is 'nowhere'"), Not(HasSubstr("\n"))));
}

/// What sbatch of Slurm 22.05 and later says, and the sentence that is made of it.
TEST_F(Slurm, EveryRefusalNamesWhatToChange) {
  const auto asked = options(
      "nodes = 9\npartition = \"gpu\"\naccount = \"ours\"\nqos = \"long\"\ntime = "
      "\"5-00:00:00\"\nmemory = \"900G\"\nreservation = \"course\"\nconstraint = \"a100\"");
  const std::string policy =
      "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit "
      "limit, user's size and/or time limits)\n";
  const auto failed = [](const std::string& why) {
    return "sbatch: error: Batch job submission failed: " + why + "\n";
  };
  const std::vector<std::pair<std::string, std::vector<std::string>>> refusals{
      {"sbatch: error: QOSMaxSubmitJobPerUserLimit\n" + policy,
       {"(QOSMaxSubmitJobPerUserLimit)", "the QOS does not allow each user more jobs in the queue",
        "wait until some of your jobs end", "slurm.qos"}},
      {"sbatch: error: AssocMaxSubmitJobLimit\n" + policy,
       {"the account does not allow you more jobs in the queue", "slurm.array", "slurm.account"}},
      {"sbatch: error: AssocGrpSubmitJobsLimit\n" + policy,
       {"the account does not allow all jobs in it together more jobs in the queue"}},
      {"sbatch: error: QOSMaxCpuPerUserLimit\n" + policy,
       {"the QOS does not allow each user more processors; lower slurm.nodes"}},
      {"sbatch: error: QOSMaxCpuPerJobLimit\n" + policy,
       {"the QOS does not allow one job more processors"}},
      {"sbatch: error: AssocGrpCPUMinutesLimit\n" + policy,
       {"the account does not allow all jobs in it together more of its budget of processor time",
        "charge another slurm.account"}},
      {"sbatch: error: AssocGrpCPURunMinutesLimit\n" + policy,
       {"more running jobs times their time limits; lower slurm.time"}},
      {"sbatch: error: AssocGrpCpuLimit\n" + policy, {"more processors"}},
      {"sbatch: error: QOSMaxGRESPerUser\n" + policy, {"more GPUs; lower slurm.gpus_per_node"}},
      {"sbatch: error: QOSMaxMemoryPerJob\n" + policy, {"one job more memory; lower slurm.memory"}},
      {"sbatch: error: QOSMaxNodePerJobLimit\n" + policy, {"more nodes; lower slurm.nodes"}},
      {"sbatch: error: QOSMaxWallDurationPerJobLimit\n" + policy,
       {"a longer time limit; lower slurm.time"}},
      {"sbatch: error: QOSMinGRES\n" + policy, {"rejects jobs that request so few resources"}},
      {policy,
       {"the job requests 9 nodes of 1 task with 1 processor", "slurm.account or slurm.qos"}},
      {failed("Invalid account or account/partition combination specified"),
       {"set slurm.account, which is 'ours', or slurm.partition, which is 'gpu'", "sacctmgr"}},
      {failed("Invalid qos specification"), {"set slurm.qos, which is 'long'"}},
      {failed("Requested account has breached requested QOS usage threshold"),
       {"slurm.qos, which is 'long'"}},
      {failed("Invalid partition name specified"), {"set slurm.partition, which is 'gpu'"}},
      {failed("Required partition not available (inactive or drain)"),
       {"the partition accepts no jobs now", "slurm.partition, which is 'gpu'"}},
      {failed("Requested time limit is invalid (missing or exceeds some limit)"),
       {"set slurm.time, which is '5-00:00:00', to what the partition allows"}},
      {"sbatch: error: Invalid --time specification\n", {"set slurm.time"}},
      {failed("Requested node configuration is not available"),
       {"the job requests 9 nodes", "lower that in [slurm]"}},
      {failed("Node count specification invalid"), {"the job requests 9 nodes"}},
      {failed("More processors requested than permitted"), {"the job requests 9 nodes"}},
      {"sbatch: error: CPU count per node can not be satisfied\n" +
           failed("Requested node configuration is not available"),
       {"(CPU count per node can not be satisfied)", "the job requests 9 nodes"}},
      {"sbatch: error: Memory specification can not be satisfied\n" +
           failed("Requested node configuration is not available"),
       {"set slurm.memory, which is '900G'"}},
      {failed("Memory required by task is not available"), {"set slurm.memory"}},
      {failed("Required node not available (down, drained or reserved)"),
       {"the nodes named in slurm.options are down"}},
      {failed("Requested nodes not in this partition"),
       {"slurm.options are not in that partition"}},
      {failed("Access/permission denied"), {"you may not use that partition, account or option"}},
      {failed("User's group not permitted to use this partition"),
       {"you may not use that partition"}},
      {failed("Requested reservation is invalid"),
       {"set slurm.reservation, which is 'course'", "scontrol show reservation"}},
      {failed("Access denied to requested reservation"), {"slurm.reservation"}},
      {failed("Invalid feature specification"), {"set slurm.constraint, which is 'a100'"}},
      {failed("Invalid generic resource (gres) specification"), {"set slurm.gpus_per_node"}},
      {failed("Invalid job array specification"), {"set slurm.array", "MaxArraySize"}},
      {failed("Job dependency problem"), {"set slurm.dependency"}},
      {failed("Invalid license specification"), {"'licenses' in slurm.options"}},
      {failed("Invalid wckey specification"), {"'wckey' in slurm.options"}},
      {failed("Socket timed out on send/recv operation"),
       {"may have queued the job", "squeue --me"}},
      {failed("Unable to contact slurm controller (connect failure)"), {"try again later"}},
      {failed("Slurm temporarily unable to accept job, sleeping and retrying: Resource temporarily "
              "unavailable"),
       {"try again later"}},
      {"sbatch: fatal: Could not establish a configuration source\n",
       {"has no Slurm configuration", "SLURM_CONF"}},
      {failed("Protocol authentication error"), {"munge"}},
      {"sbatch: unrecognized option '--nosuch=1'\nTry \"sbatch --help\" for more information\n",
       {"correct slurm.options"}},
      {failed("Pathname of a file, directory or other parameter too long"),
       {"shorten slurm.lines"}},
      {"sbatch: error: this site wants an account; ask for one at the desk\n" +
           failed("Unspecified error"),
       {"Unspecified error (this site wants an account; ask for one at the desk)"}},
      {"", {"no reason is given", "scontrol show partition"}},
  };
  for (const auto& [said, words] : refusals) {
    const auto sentence = explain_refusal(said, asked);
    EXPECT_TRUE(sentence.starts_with("Slurm rejects the job: ")) << sentence;
    EXPECT_EQ(sentence.find('\n'), std::string::npos) << sentence;
    for (const auto& word : words) EXPECT_THAT(sentence, HasSubstr(word)) << said;
  }
}

TEST_F(Slurm, AJobThatWaitsForAReasonOfItsOwnIsExplained) {
  EXPECT_EQ(explain_waiting("Priority"), "Priority");
  EXPECT_EQ(explain_waiting("Resources"), "Resources");
  const std::map<std::string, std::string> meanings{
      {"QOSMaxCpuPerUserLimit", "the QOS does not allow each user more processors"},
      {"AssocGrpCpuLimit", "the account does not allow all jobs in it together more processors"},
      {"QOSMaxJobsPerUserLimit", "each user more running jobs; wait until some jobs end"},
      {"PartitionTimeLimit", "slurm.time exceeds the partition's limit"},
      {"ReqNodeNotAvail, UnavailableNodes:n[1-3]", "are down, drained or reserved"},
      {"InvalidAccount", "slurm.account is not one of your accounts"},
      {"InvalidQOS", "slurm.qos is not available to you"},
      {"DependencyNeverSatisfied", "the condition of slurm.dependency"},
      {"launch failed requeued held", "scontrol release JOB"}};
  for (const auto& [reason, meaning] : meanings)
    EXPECT_THAT(explain_waiting(reason),
                AllOf(testing::StartsWith(reason + ": "), HasSubstr(meaning)));
}

// ---- What the user's shell brings along

TEST_F(Slurm, WhatWouldOverruleTheScriptIsLeftAsideAndTold) {
  auto asked = options("time = \"30\"\nmemory = \"500M\"");
  const Environment shell{{"SBATCH_TIMELIMIT", "2"},
                          {"SBATCH_NO_REQUEUE", "1"},
                          {"SLURM_MEM_PER_CPU", "100"},
                          {"SLURM_CONF", "/etc/slurm.conf"},
                          {"HOME", "/home/me"}};
  const auto told = take_over(shell, asked);
  EXPECT_THAT(told, testing::UnorderedElementsAre(
                        HasSubstr("SBATCH_TIMELIMIT=2 in the environment is ignored"),
                        HasSubstr("SBATCH_NO_REQUEUE=1"), HasSubstr("SLURM_MEM_PER_CPU=100")));
  EXPECT_EQ(asked.time, "30");
  EXPECT_EQ(without_slurm(shell),
            (Environment{{"SLURM_CONF", "/etc/slurm.conf"}, {"HOME", "/home/me"}}));
}

TEST_F(Slurm, WhatTheRunFileLeavesOpenIsTakenFromTheEnvironmentAndTold) {
  auto asked = options("partition = \"main\"\noptions = { wckey = \"mine\" }");
  const auto told = take_over({{"SBATCH_ACCOUNT", "ours"},
                               {"SBATCH_PARTITION", "theirs"},
                               {"SBATCH_EXPORT", "NONE"},
                               {"SBATCH_WCKEY", "x"},
                               {"SBATCH_QOS", ""}},
                              asked);
  EXPECT_EQ(asked.account, "ours");
  EXPECT_EQ(asked.partition, "main");
  EXPECT_EQ(asked.qos, "");
  EXPECT_EQ(asked.options, (OptionMap{{"export", "NONE"}, {"wckey", "mine"}}));
  EXPECT_THAT(told, testing::IsSupersetOf(
                        {HasSubstr("slurm.account = \"ours\" is taken from SBATCH_ACCOUNT"),
                         HasSubstr("slurm.options.export = \"NONE\" is taken from"),
                         HasSubstr("SBATCH_PARTITION=theirs in the environment is ignored"),
                         HasSubstr("SBATCH_WCKEY=x")}));
}

TEST_F(Slurm, AShellInAJobHandsNothingOfThatJobDown) {
  const Environment shell{{"SLURM_JOB_ID", "12"},
                          {"SLURM_CPU_BIND", "mask_cpu:0x1"},
                          {"PMIX_RANK", "0"},
                          {"OMPI_COMM_WORLD_SIZE", "1"},
                          {"CUDA_VISIBLE_DEVICES", "0"},
                          {"SQUEUE_FORMAT", "%i"},
                          {"SRUN_CPUS_PER_TASK", "1"},
                          {"OMPI_MCA_btl", "self,tcp"},
                          {"SLURM_PMIX_FENCE", "ring"},
                          {"PATH", "/bin"}};
  auto asked = options("");
  EXPECT_THAT(take_over(shell, asked),
              testing::ElementsAre(HasSubstr("this shell runs inside job 12")));
  EXPECT_EQ(
      without_slurm(shell),
      (Environment{{"OMPI_MCA_btl", "self,tcp"}, {"SLURM_PMIX_FENCE", "ring"}, {"PATH", "/bin"}}));
}

TEST_F(Slurm, SlurmsCommandsAreRunWithoutWhatChangesThem) {
  ::setenv("SQUEUE_USERS", "nobody", 1);
  ::setenv("ATTUNE_TEST_KEPT", "yes", 1);
  const auto said = run_slurm({"env"});
  EXPECT_THAT(said.out, AllOf(HasSubstr("ATTUNE_TEST_KEPT=yes\n"), Not(HasSubstr("SQUEUE_USERS"))));
}

TEST_F(Slurm, VariablesInATextAreReplacedAsTheShellDoes) {
  ::setenv("ATTUNE_TEST_A", "x y", 1);
  EXPECT_EQ(with_variables_replaced(
                "1 $ATTUNE_TEST_A ${ATTUNE_TEST_A}z \\$ATTUNE_TEST_A $ATTUNE_TEST_NONE."),
            "1 x y x yz $ATTUNE_TEST_A .");
}

TEST_F(Slurm, TheGpusOfAJobAreKnownFromItsVariables) {
  using Values = std::map<std::string, std::string>;
  const auto gpus = [](Values values) {
    return gpus_of_job(
        [values](const std::string& name) { return values.contains(name) ? values.at(name) : ""; });
  };
  EXPECT_EQ(gpus({}), "");
  EXPECT_EQ(gpus({{"SLURM_JOB_ID", "5"}}), "");
  EXPECT_EQ(gpus({{"SLURM_JOB_GPUS", "0"}}), "") << "no job";
  EXPECT_EQ(gpus({{"SLURM_JOB_ID", "5"}, {"SLURM_JOB_GPUS", "0"}}), "SLURM_JOB_GPUS=0")
      << "the first GPU, and not none";
  EXPECT_EQ(gpus({{"SLURM_JOB_ID", "5"}, {"SLURM_GPUS_ON_NODE", "2"}}), "SLURM_GPUS_ON_NODE=2");
  EXPECT_EQ(gpus({{"SLURM_JOB_ID", "5"}, {"SLURM_GPUS_ON_NODE", "0"}, {"SLURM_JOB_GPUS", "0,1"}}),
            "")
      << "the step has none";
  EXPECT_EQ(gpus({{"SLURM_JOB_ID", "5"}, {"SLURM_GPUS_PER_TASK", "1"}}), "SLURM_GPUS_PER_TASK=1");
  EXPECT_EQ(gpus({{"SLURM_JOB_ID", "5"}, {"SLURM_GPUS_PER_NODE", "a100:4"}}),
            "SLURM_GPUS_PER_NODE=a100:4");
}

TEST_F(Slurm, GpusOfANodeAreThoseThatItsRanksSeeTogether) {
  const auto said = [](const std::vector<std::vector<std::string>>& gpus) {
    std::vector<placement::RankPlace> ranks;
    for (const auto& names : gpus)
      ranks.push_back({"n1", {0}, 8, static_cast<int>(names.size()), 1, "n1", {0}, 8, names});
    return differences({1, {}, 4, {}}, ranks);
  };
  using testing::IsEmpty;
  EXPECT_THAT(said({{"0", "1", "2", "3"}, {"0", "1", "2", "3"}}), IsEmpty()) << "all see all";
  EXPECT_THAT(said({{"0"}, {"1"}, {"2"}, {"3"}}), IsEmpty()) << "each sees its own";
  EXPECT_THAT(said({{"0"}, {"0"}, {"0"}, {"0"}}), IsEmpty()) << "renumbered by a cgroup";
  EXPECT_THAT(said({{"0", "1"}, {"0", "1"}, {"0", "1"}, {"0", "1"}}),
              testing::ElementsAre(
                  HasSubstr("n1: 2 visible GPUs for the node, but the run file asks for 4: give "
                            "--gpus-per-node=4")));
}

TEST_F(Slurm, TheQueueIsReadWithArraysAndStates) {
  const auto jobs = read_queue(
      "12|12|N/A|RUNNING|None|9:59|n[1-2]\n14|13|4|PENDING|JobArrayTaskLimit|10:00|\n15|15|N/"
      "A|COMPLETED|None|INVALID|n1\n");
  ASSERT_EQ(jobs.size(), 3);
  EXPECT_EQ(jobs[0].nodes, "n[1-2]");
  EXPECT_TRUE(jobs[0].is_live());
  EXPECT_EQ(jobs[1].array_id + "_" + jobs[1].element, "13_4");
  EXPECT_EQ(jobs[1].reason, "JobArrayTaskLimit");
  EXPECT_FALSE(jobs[2].is_live());
}

TEST_F(Slurm, AccountsAreSummedOverAttempts) {
  const auto accounts = *read_accounting(
      "7|PREEMPTED|10|40|||billing=4,cpu=4,gres/gpu=2,mem=2000M,node=1\n"
      "7.batch|CANCELLED|10|40|1500K||cpu=4\n"
      "7|COMPLETED|20|80|||billing=4,cpu=4,gres/gpu=2,node=1\n"
      "7.0|COMPLETED|19|76|2M|300|cpu=4\n");
  EXPECT_EQ(accounts["state"], "COMPLETED");
  EXPECT_EQ(accounts["elapsed_seconds"], 30);
  EXPECT_EQ(accounts["cpu_seconds"], 120);
  EXPECT_EQ(accounts["gpu_seconds"], 60);
  EXPECT_EQ(accounts["memory_bytes"], 2 << 20);
  EXPECT_EQ(accounts["energy_joules"], 300);
  EXPECT_FALSE(read_accounting("").has_value());
  EXPECT_FALSE(read_accounting("7|RUNNING|10|40|||cpu=4\n").has_value()) << "it is not over";
}

TEST_F(Slurm, TheEndingOfAJobIsThatOfItsNewestAttempt) {
  const auto ending = read_ending(
      "7|REQUEUED|1|1|||cpu=1|0:0|n1\n7.0|OUT_OF_MEMORY|1|1|||cpu=1|0:9|n1\n7|FAILED|1|1|||cpu=1|3:"
      "0|n[2-3]\n7.0|FAILED|1|1|||cpu=1|3:0|n2\n");
  ASSERT_TRUE(ending.has_value());
  EXPECT_EQ(ending->state, "FAILED") << "the earlier attempt ran out of memory, this one did not";
  EXPECT_EQ(ending->code, 3);
  EXPECT_EQ(ending->nodes, "n[2-3]");
  EXPECT_EQ(
      read_ending("7|FAILED|1|1|||cpu=1|137:0|n1\n7.0|OUT_OF_MEMORY|1|1|||cpu=1|0:125|n1\n")->state,
      "OUT_OF_MEMORY");
  EXPECT_EQ(read_ending("7|CANCELLED by 0|1|1|||cpu=1|0:15|n1\n")->cancelled_by, "root");
  EXPECT_EQ(read_ending("7|FAILED|1|1|||cpu=1|0:9|n1\n")->signal, 9);
  EXPECT_FALSE(
      read_ending("7|NODE_FAIL|1|1|||cpu=1|0:0|n1\n7|PENDING|0|0|||cpu=1|0:0|None assigned\n"))
      << "requeued";
  EXPECT_FALSE(read_ending(""));
}

TEST_F(Slurm, AccountsOfManyJobsAreToldApart) {
  const auto accounts = split_accounts(
      "7|COMPLETED|1|1|||cpu=1|0:0|n1\n7.batch|COMPLETED|1|1|||cpu=1|0:0|n1\n"
      "8_2|COMPLETED|1|1|||cpu=1|0:0|n1\n8_[1-2,5%1]|CANCELLED by 0|0|0|||cpu=1|0:0|None assigned\n"
      "8_10|FAILED|1|1|||cpu=1|1:0|n1\nno line of sacct\n");
  std::map<std::string, std::string> states;
  for (const auto& [job, lines] : accounts) states[job] = read_ending(lines)->state;
  EXPECT_EQ(states, (std::map<std::string, std::string>{{"7", "COMPLETED"},
                                                        {"8_1", "CANCELLED"},
                                                        {"8_2", "COMPLETED"},
                                                        {"8_5", "CANCELLED"},
                                                        {"8_10", "FAILED"}}));
  EXPECT_EQ(lines_of(accounts.at("7")).size(), 2);
}

TEST_F(Slurm, ListsOfJobsFitACommandLine) {
  std::vector<std::string> ids(50'000, "1234567_12");
  std::size_t all = 0;
  for (const auto& list : comma_lists(ids)) {
    EXPECT_LT(list.size(), 131'072);
    all += pieces_of(list, ',').size();
  }
  EXPECT_EQ(all, ids.size());
  EXPECT_TRUE(comma_lists({}).empty());
}

TEST_F(Slurm, ACommandThatIsMissingIsToldApartFromOneThatFails) {
  EXPECT_EQ(run_command({"no-such-program-here"}).code, 127);
  const auto said = run_command({"bash", "-c", "echo out; echo err >&2; exit 3"});
  EXPECT_EQ(said.code, 3);
  EXPECT_EQ(said.out, "out\n");
  EXPECT_EQ(said.err, "err\n");
  EXPECT_TRUE(is_installed("bash"));
  EXPECT_FALSE(is_installed("no-such-program-here"));
}

// ---- The lock, as the queue judges it

TEST_F(Slurm, ALockOfAnotherMachineIsJudgedByTheQueue) {
  const auto me = Holder::this_process();
  auto there = me;
  there.host = "n2";
  there.job = "12";
  const auto says = [](const std::string& state) {
    return [state](const std::string& job) {
      return std::optional(has_live(read_queue("12|12|N/A|" + state + "|None|1:00|n2\n"), job));
    };
  };
  EXPECT_EQ(life_of(there, me, says("RUNNING")), Life::alive);
  EXPECT_EQ(life_of(there, me, says("PENDING")), Life::alive) << "requeued: it comes back";
  EXPECT_EQ(life_of(there, me, says("NODE_FAIL")), Life::gone);
  EXPECT_EQ(life_of(there, me, [](const auto&) { return std::optional(has_live({}, "12")); }),
            Life::gone);
  EXPECT_EQ(life_of(there, me, [](const auto&) { return std::optional<bool>(); }), Life::unknown);
  there.job = "";
  EXPECT_EQ(life_of(there, me, says("RUNNING")), Life::unknown)
      << "no job, another machine: nobody can tell";
  write("run/lock.1", there.text());
  EXPECT_THAT(error_of([&] { RunLock::take(folder_ / "run", is_live); }),
              HasSubstr("if it does not, remove"));
}

TEST_F(Slurm, ADirectoryInUseIsNotSubmittedFor) {
  const auto lock = RunLock::take(folder_ / "run", is_live);
  EXPECT_THAT(error_of([&] { check_are_free({folder_ / "run"}); }),
              HasSubstr("is in use by process"));
}

TEST_F(Slurm, AnElementOfAnArrayIsKnownByBothItsNumbers) {
  const auto queue = read_queue("14|13|4|RUNNING|None|1:00|n2\n15|13|5|COMPLETED|None|1:00|n2\n");
  for (const char* live : {"14", "13_4"}) EXPECT_TRUE(has_live(queue, live)) << live;
  for (const char* gone : {"13", "15", "13_5", "4", ""})
    EXPECT_FALSE(has_live(queue, gone)) << gone;
}

// ---- Staging

config::RunConfig staged_run(const fs::path& folder) {
  config::RunConfig config;
  config.dataset.path = folder / "sums.h5";
  config.model.path = folder / "model";
  return config;
}

TEST_F(Slurm, DataAndModelAreCopiedToScratchAndRemoved) {
  write("sums.h5", "data");
  write("model/config.json", "{}");
  write("model/deeper/part.bin", std::string(40 << 20, 'x'));
  ::setenv("ATTUNE_SCRATCH", (folder_ / "scratch").c_str(), 1);
  ::setenv("ATTUNE_STAGE", "data,model", 1);
  {
    const Staging staging(staged_run(folder_), attune::Mesh());
    EXPECT_TRUE(staging.config().dataset.path.starts_with((folder_ / "scratch/attune-").string()));
    EXPECT_EQ(read_text(staging.config().dataset.path), "data");
    EXPECT_EQ(read_text(fs::path(staging.config().model.path) / "deeper/part.bin"),
              std::string(40 << 20, 'x'));
  }
  EXPECT_TRUE(fs::is_empty(folder_ / "scratch"));
  ::setenv("ATTUNE_STAGE", "data", 1);
  const Staging data_alone(staged_run(folder_), attune::Mesh());
  EXPECT_EQ(data_alone.config().model.path, (folder_ / "model").string());
  ::unsetenv("ATTUNE_STAGE");
  const Staging nothing(staged_run(folder_), attune::Mesh());
  EXPECT_EQ(nothing.config().dataset.path, (folder_ / "sums.h5").string());
}

TEST_F(Slurm, AFullScratchIsToldBeforeAnythingIsCopied) {
  write("sums.h5", "");
  fs::resize_file(folder_ / "sums.h5", std::uintmax_t{8} << 40);  // takes no space itself
  ::setenv("ATTUNE_SCRATCH", (folder_ / "scratch").c_str(), 1);
  ::setenv("ATTUNE_STAGE", "data", 1);
  EXPECT_THAT(
      error_of([&] { Staging(staged_run(folder_), attune::Mesh()); }),
      AllOf(HasSubstr("8.0 TiB are needed,"), HasSubstr("remove 'stage' from the site file")));
  EXPECT_TRUE(fs::is_empty(folder_ / "scratch"));
  ::setenv("ATTUNE_SCRATCH", "/proc/nowhere", 1);
  EXPECT_THAT(error_of([&] { Staging(staged_run(folder_), attune::Mesh()); }),
              HasSubstr("is not writable"));
}

// ---- Progress

TEST_F(Slurm, ProgressIsReadFromARunsFiles) {
  write("run/metrics.jsonl",
        "{\"event\":\"run_begin\",\"step\":0,\"steps\":40}\n"
        "{\"event\":\"step_end\",\"step\":1,\"seconds\":1.0,\"loss\":3.0,\"tokens_per_second\":10."
        "0}\n"
        "{\"event\":\"step_end\",\"step\":11,\"seconds\":6.0,\"loss\":2.0,\"tokens_per_second\":20."
        "0}\n"
        "{\"event\":\"evaluated\",\"step\":11,\"seconds\":7.0,\"evaluation\":{\"loss\":1.5}}\n"
        "{\"event\":\"step_e");
  write(
      "run/record.json",
      R"({"slurm_job":"8","history":[{"what":"started"},{"what":"interrupted","note":"by signal 15"},{"what":"resumed"}]})");
  const auto p = read_progress(folder_ / "run");
  EXPECT_EQ(p.step, 11);
  EXPECT_EQ(p.steps, 40);
  EXPECT_EQ(p.loss, 2.0);
  EXPECT_EQ(p.tokens_per_second, 20.0);
  EXPECT_EQ(p.seconds_per_step, 0.5);
  EXPECT_EQ(p.evaluation.at("loss"), 1.5);
  EXPECT_EQ(p.starts, 2);
  EXPECT_EQ(p.jobs, std::vector<std::string>{"8"});
  EXPECT_EQ(state_of(p, read_queue("8|8|N/A|PENDING|BeginTime|1:00|\n")), "requeued");
  EXPECT_EQ(state_of(p, read_queue("8|8|N/A|RUNNING|None|1:00|n1\n")), "starting");
  EXPECT_EQ(state_of(p, {}), "failed");
  auto saved = p;
  saved.last = "interrupted";
  EXPECT_EQ(state_of(saved, read_queue("8|8|N/A|COMPLETING|None|1:00|n1\n")), "interrupted")
      << "a job that ends starts nothing";
  const auto lock = RunLock::take(folder_ / "run", is_live);
  EXPECT_EQ(state_of(read_progress(folder_ / "run"), {}), "training");
}

TEST_F(Slurm, ADirectoryWithoutFilesIsNew) {
  EXPECT_EQ(state_of(read_progress(folder_), {}), "new");
}

}  // namespace
}  // namespace attune::slurm
