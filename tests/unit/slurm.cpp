// Job scripts, site files, what is read from Slurm's commands, and the lock of a run directory.
#include "errors.hpp"
#include "slurm/script.hpp"

#include <attune/error.hpp>
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "slurm/command.hpp"
#include "slurm/progress.hpp"
#include "slurm/queue.hpp"
#include "slurm/run_lock.hpp"
#include "slurm/staging.hpp"
#include "slurm/submission.hpp"

namespace attune::slurm {
namespace {

namespace fs = std::filesystem;
using config::Document;
using config::SlurmOptions;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// A folder of its own, removed at the end.
class Slurm : public testing::Test {
 protected:
  Slurm() : folder_(fs::temp_directory_path() / fmt::format("attune-unit-slurm-{}", ::getpid())) { fs::create_directories(folder_); }
  ~Slurm() override { fs::remove_all(folder_); }

  fs::path write(const std::string& name, const std::string& text) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
    return folder_ / name;
  }

  Site site(const std::string& text) const { return read_site(write("site.toml", text).string(), {}); }

  fs::path folder_;
};

SlurmOptions options(const std::string& toml, const Site& site = {}) { return options_at(site, Document::parse_text("[slurm]\n" + toml, "run.toml")); }

Job job(SlurmOptions options, Site site = {}) {
  return {"glossary", "attune submit run.toml", "/opt/attune/bin/attune", {"/opt/attune/bin/attune", "/opt/attune/lib/libattune.so.0", "/opt/attune/lib/attune/plugins"}, "runs/glossary", "runs/glossary/job.sbatch", "runs/glossary/slurm-%j.log", {}, std::move(options), std::move(site), std::nullopt};
}

/// ATTUNE_WRITE_GOLDEN=1 writes the copies anew.
void expect_golden(const std::string& script, const std::string& name) {
  const auto file = fs::path(ATTUNE_SOURCE_DIR) / "tests/unit/golden" / name;
  if (std::getenv("ATTUNE_WRITE_GOLDEN")) std::ofstream(file) << script;
  EXPECT_EQ(script, read_text(file)) << "differs from " << file;
}

// ---- Job scripts

TEST_F(Slurm, AScriptOfDefaultsIsTheGoldenOne) { expect_golden(job_script(job({})), "plain.sbatch"); }

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

TEST_F(Slurm, AScriptForMpirunIsTheGoldenOne) { expect_golden(job_script(job(options("launcher = \"mpirun\"\nnodes = 2"))), "mpirun.sbatch"); }

TEST_F(Slurm, AScriptForAnArrayIsTheGoldenOne) {
  auto wanted = job(options("retries = 1"));
  wanted.directory = "sweeps/rates";
  wanted.script = "sweeps/rates/jobs/0001.sbatch";
  wanted.log = "sweeps/rates/jobs/%A_%a.log";
  wanted.train_options = {"--sweep", "sweeps/rates"};
  wanted.array = Array{"0-11%3", 12, "sweeps/rates/jobs/0001.trials"};
  expect_golden(job_script(wanted), "array.sbatch");
}

TEST_F(Slurm, AScriptForTheElementsOfAnArrayIsTheGoldenOne) {
  auto wanted = job(options("array = \"1,3,5-9:2%2\""));
  wanted.script = "runs/glossary.sbatch";
  wanted.log = "runs/glossary-%a/slurm-%A_%a.log";
  wanted.array = Array{wanted.options.array, 5, {}};
  expect_golden(job_script(wanted), "elements.sbatch");
}

TEST_F(Slurm, EveryScriptIsGoodShell) {
  auto odd = job(options("environment = { A = 'a \"b\" `c`' }\nlauncher = \"mpirun\"\nretries = 2"));
  odd.directory = "runs/it's mine";
  odd.site.options.scratch = "/tmp/my scratch";
  odd.site.options.stage = {"program"};
  for (const auto& script : {job_script(job({})), job_script(odd)}) {
    const auto said = run_command({"bash", "-n", write("job.sbatch", script).string()});
    EXPECT_EQ(said.code, 0) << said.err << script;
  }
}

TEST_F(Slurm, WordsReachTheShellAsTheyAre) {
  for (const std::string word : {"plain", "two words", "it's", "$HOME", "a;b", "*"}) {
    const auto said = run_command({"bash", "-c", "printf %s " + shell_word(word)});
    EXPECT_EQ(said.out, word);
  }
}

/// The part of a script that counts attempts, run as it would be, with a stand-in for srun.
TEST_F(Slurm, AJobThatMakesNoProgressTwiceEnds) {
  auto wanted = job({});
  wanted.directory = folder_ / "run";
  auto script = job_script(wanted);
  script.replace(script.find("srun --mpi"), 4, "true");
  const auto file = write("job.sbatch", script);
  const auto attempt = [&] { return run_command({"env", "SLURM_JOB_ID=5", "bash", file.string()}); };
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

/// A job whose program is staged, with stand-ins for the program, which tells from where it runs, and for srun.
class StagedProgram : public Slurm {
 protected:
  StagedProgram() {
    write_program("bin/srun", "while [[ $1 == --* ]]; do shift; done; exec \"$@\"");
    write_program("here/attune", "echo \"$0 $LD_LIBRARY_PATH\"; cd \"$(dirname \"$0\")\" && find . -type f | sort");
    write("here/lib/libattune.so.0.1.0", "code");
    fs::create_symlink("libattune.so.0.1.0", folder_ / "here/lib/libattune.so.0");
    write("here/plugins/lora.so", "code");
  }
  void write_program(const std::string& name, const std::string& text) const { fs::permissions(write(name, "#!/bin/bash\n" + text + "\n"), fs::perms::owner_all); }

  Said run() const {
    auto wanted = job({}, site("scratch = \"" + folder_.string() + "/scratch/$SLURM_JOB_ID\"\nstage = [\"program\"]"));
    wanted.directory = folder_ / "run";
    wanted.program = folder_ / "here/attune";
    wanted.program_files = {wanted.program, folder_ / "here/lib/libattune.so.0", folder_ / "here/plugins"};
    const auto path = "PATH=" + (folder_ / "bin").string() + ":" + std::getenv("PATH");
    return run_command({"env", "-u", "LD_LIBRARY_PATH", path, "SLURM_JOB_ID=5", "SLURM_JOB_NUM_NODES=1", "bash", write("job.sbatch", job_script(wanted)).string()});
  }
};

TEST_F(StagedProgram, RunsFromScratchAndIsRemoved) {
  const auto said = run();
  const auto there = (folder_ / "scratch/5/attune-5").string();
  EXPECT_EQ(said.code, 0) << said.err;
  EXPECT_EQ(said.out, there + "/attune " + there + "\n./attune\n./libattune.so.0\n./plugins/lora.so\n");
  EXPECT_TRUE(fs::is_empty(folder_ / "scratch/5"));
}

TEST_F(StagedProgram, AFullScratchIsToldBeforeItIsCopied) {
  write_program("bin/df", "echo Avail; echo 1000");
  const auto said = run();
  EXPECT_EQ(said.code, 2) << "it is not tried again";
  EXPECT_THAT(said.err, AllOf(HasSubstr("scratch/5/attune-5 on "), HasSubstr("bytes, and 1000 are free; make room")));
  EXPECT_EQ(said.out, "");
  EXPECT_TRUE(fs::is_empty(folder_ / "scratch/5"));
}

// ---- [slurm] and sites

TEST_F(Slurm, MistakesAreToldTogetherWithTheirPlaces) {
  const auto said = error_of([] { options("nods = 2\ntime = \"soon\"\nmemory = \"much\"\ngpus_per_node = 4\noptions = { mem = \"5G\", \"--exclusive\" = \"\" }"); });
  EXPECT_THAT(said, HasSubstr("run.toml:2:1: unknown key 'nods'; did you mean 'nodes'?"));
  EXPECT_THAT(said, HasSubstr("run.toml:3:8: 'time' is 'soon', which is no time"));
  EXPECT_THAT(said, HasSubstr("run.toml:4:10: 'memory' is 'much'"));
  EXPECT_THAT(said, HasSubstr("run.toml:5:17: 1 ranks and 4 GPUs on a node: every rank computes on one GPU, so set tasks_per_node = 4"));
  EXPECT_THAT(said, HasSubstr("use memory of [slurm]"));
  EXPECT_THAT(said, HasSubstr("'--exclusive' is no long option of sbatch"));
}

TEST_F(Slurm, AnArrayIsReadAsSbatchReadsIt) {
  using Numbers = std::vector<std::int64_t>;
  EXPECT_EQ(config::array_elements("0-3%2"), (Numbers{0, 1, 2, 3}));
  EXPECT_EQ(config::array_elements("9,1,5-20:5,5"), (Numbers{1, 5, 9, 10, 15, 20}));
  EXPECT_EQ(config::array_elements("7"), Numbers{7});
  for (const char* no : {"", "a", "3-1", "0-9:0", "1,,2", "0-9%0", "1-", "0-99999999"}) EXPECT_EQ(config::array_elements(no), Numbers{}) << no;
}

TEST_F(Slurm, WhatAnElementSetsHoldsItsNumber) {
  EXPECT_EQ(options("array = \"0-9\"").overrides_of(4), std::vector<std::string>{"seed=4"}) << "seeds, when nothing is said";
  const auto each = options("array = \"0-9\"\neach = { \"dataset.path\" = \"parts/${SLURM_ARRAY_TASK_ID}.h5\", seed = \"1$SLURM_ARRAY_TASK_ID\", \"train.steps\" = \"5\" }");
  EXPECT_EQ(each.overrides_of(12), (std::vector<std::string>{"dataset.path=parts/12.h5", "seed=112", "train.steps=5"}));
}

TEST_F(Slurm, AnArrayThatMakesNoSenseIsRefusedWithItsPlace) {
  EXPECT_THAT(error_of([] { options("array = \"0..9\""); }), HasSubstr("run.toml:2:9: 'array' is '0..9', which is no array"));
  EXPECT_THAT(error_of([] { options("each = { seed = \"$SLURM_ARRAY_TASK_ID\" }"); }), HasSubstr("'each' is for the elements of an 'array'"));
  EXPECT_THAT(error_of([] { options("array = \"0-9\"\neach = { seed = \"3\" }"); }), HasSubstr("run.toml:3:8: 'each' sets the same for every element"));
  EXPECT_THAT(error_of([] { options("array = \"0-9\"\neach = { name = \"x$SLURM_ARRAY_TASK_ID\" }"); }), HasSubstr("'name' in 'each'"));
  EXPECT_THAT(error_of([] { options("options = { array = \"0-9\" }"); }), HasSubstr("use array of [slurm]"));
}

TEST_F(Slurm, ARunFileSpeaksLouderThanTheSiteAndListsAddUp) {
  const auto here = site("partitions = { gpu = \"accelerated\" }\n[slurm]\npartition = \"gpu\"\naccount = \"ours\"\nnodes = 3\nmodules = [\"gcc\"]\nenvironment = { A = \"1\", B = \"1\" }");
  const auto merged = options("nodes = 2\nmodules = [\"gcc\", \"hdf5\"]\nenvironment = { A = \"2\" }", here);
  EXPECT_EQ(merged.nodes, 2);
  EXPECT_EQ(merged.account, "ours");
  EXPECT_EQ(merged.partition, "accelerated");
  EXPECT_EQ(merged.modules, (std::vector<std::string>{"gcc", "hdf5"}));
  EXPECT_EQ(merged.environment, (OptionMap{{"A", "2"}, {"B", "1"}}));
}

TEST_F(Slurm, ASiteFileWithAnUnknownKeyIsRefusedWithItsPlace) {
  EXPECT_THAT(error_of([&] { site("scrach = \"/scratch\""); }), AllOf(HasSubstr("site.toml:1:1: unknown key 'scrach'; did you mean 'scratch'?")));
  EXPECT_THAT(error_of([&] { site("[slurm]\npartitoin = \"x\""); }), HasSubstr("site.toml:2:1: unknown key 'partitoin'"));
  EXPECT_THAT(error_of([&] { site("stage = [\"data\"]"); }), HasSubstr("'stage' needs 'scratch'"));
}

TEST_F(Slurm, ASiteIsFoundByNameAndAMisspelledOneIsGuessed) {
  write("sites/alps.toml", "about = \"x\"");
  EXPECT_EQ(read_site("alps", {folder_ / "sites"}).options.about, "x");
  EXPECT_THAT(error_of([&] { read_site("alsp", {folder_ / "sites"}); }), HasSubstr("there is no site 'alsp'; did you mean 'alps'?"));
  EXPECT_THAT(error_of([&] { read_site("./none.toml", {}); }), HasSubstr("there is no such site file"));
}

TEST_F(Slurm, TheSitesThatComeWithAttuneAreInOrder) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(ATTUNE_SOURCE_DIR) / "slurm/sites"))
    if (entry.path().extension() == ".toml") read_site(entry.path().string(), {}), ++count;
  EXPECT_GT(count, 0);
}

// ---- What Slurm's commands say

TEST_F(Slurm, RefusalsAreExplainedWithTheKeyToChange) {
  const auto said = explain_refusal("sbatch: error: invalid partition specified: nowhere\nallocation failure: Invalid partition name specified\n", options("partition = \"nowhere\""));
  EXPECT_THAT(said, AllOf(HasSubstr("Slurm does not take the job: Invalid partition name specified"), HasSubstr("set slurm.partition, which is 'nowhere'"), Not(HasSubstr("\n"))));
}

TEST_F(Slurm, TheQueueIsReadWithArraysAndStates) {
  const auto jobs = read_queue("12|12|N/A|RUNNING|None|9:59|n[1-2]\n14|13|4|PENDING|JobArrayTaskLimit|10:00|\n15|15|N/A|COMPLETED|None|INVALID|n1\n");
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

TEST_F(Slurm, ACommandThatIsMissingIsToldApartFromOneThatFails) {
  EXPECT_EQ(run_command({"no-such-program-here"}).code, 127);
  const auto said = run_command({"bash", "-c", "echo out; echo err >&2; exit 3"});
  EXPECT_EQ(said.code, 3);
  EXPECT_EQ(said.out, "out\n");
  EXPECT_EQ(said.err, "err\n");
  EXPECT_TRUE(is_installed("bash"));
  EXPECT_FALSE(is_installed("no-such-program-here"));
}

// ---- The lock

/// A process that has ended, and is known to have.
std::int64_t ended_process() {
  const auto pid = ::fork();
  if (pid == 0) ::_exit(0);
  ::waitpid(pid, nullptr, 0);
  return pid;
}

TEST_F(Slurm, ADirectoryInUseIsRefusedWithItsHolder) {
  const auto lock = RunLock::take(folder_ / "run");
  EXPECT_THAT(error_of([&] { RunLock::take(folder_ / "run"); }), AllOf(HasSubstr("is in use by process"), HasSubstr(std::to_string(::getpid()))));
  EXPECT_THAT(error_of([&] { check_are_free({folder_ / "run"}); }), HasSubstr("is in use by"));
}

TEST_F(Slurm, ALockGoesWithItsRun) {
  { const auto lock = RunLock::take(folder_ / "run"); }
  EXPECT_FALSE(holder_of(folder_ / "run").has_value());
  const auto lock = RunLock::take(folder_ / "run");
  EXPECT_EQ(holder_of(folder_ / "run")->pid, ::getpid());
}

TEST_F(Slurm, AStaleLockOfThisMachineIsTakenOver) {
  auto dead = Holder::this_process();
  dead.pid = ended_process();
  write("run/lock.1", dead.text());
  const auto lock = RunLock::take(folder_ / "run");
  EXPECT_EQ(holder_of(folder_ / "run")->pid, ::getpid());
  EXPECT_FALSE(fs::exists(folder_ / "run/lock.1"));
}

TEST_F(Slurm, APidThatIsUsedAgainIsNoLife) {
  auto other = Holder::this_process();
  other.started = "1";
  EXPECT_EQ(life_of(other, Holder::this_process()), Life::gone);
}

TEST_F(Slurm, ALockOfAnotherMachineIsJudgedByTheQueue) {
  const auto me = Holder::this_process();
  auto there = me;
  there.host = "n2";
  there.job = "12";
  const auto says = [](const std::string& state) { return [state](const auto&) { return std::optional(read_queue("12|12|N/A|" + state + "|None|1:00|n2\n")); }; };
  EXPECT_EQ(life_of(there, me, says("RUNNING")), Life::alive);
  EXPECT_EQ(life_of(there, me, says("PENDING")), Life::alive) << "requeued: it comes back";
  EXPECT_EQ(life_of(there, me, says("NODE_FAIL")), Life::gone);
  EXPECT_EQ(life_of(there, me, [](const auto&) { return std::optional(std::vector<QueuedJob>{}); }), Life::gone);
  EXPECT_EQ(life_of(there, me, [](const auto&) { return std::optional<std::vector<QueuedJob>>(); }), Life::unknown);
  there.job = "";
  EXPECT_EQ(life_of(there, me, says("RUNNING")), Life::unknown) << "no job, another machine: nobody can tell";
  write("run/lock.1", there.text());
  EXPECT_THAT(error_of([&] { RunLock::take(folder_ / "run"); }), HasSubstr("when it does not, remove"));
}

TEST_F(Slurm, AJobsEarlierAttemptDoesNotHoldItUp) {
  auto before = Holder::this_process(), now = before;
  before.host = "n2";
  before.job = now.job = "12_3";
  EXPECT_EQ(life_of(before, now, [](const auto&) { return std::optional<std::vector<QueuedJob>>(); }), Life::gone);
}

TEST_F(Slurm, OfManyAtOnceOneAtMostHolds) {
  for (int round = 0; round < 20; ++round) {
    const auto directory = folder_ / fmt::format("run{}", round);
    auto dead = Holder::this_process();
    dead.pid = ended_process();
    write(fmt::format("run{}/lock.1", round), dead.text());
    int gate[2];
    ASSERT_EQ(::pipe(gate), 0);
    std::vector<pid_t> children;
    for (int i = 0; i < 4; ++i) {
      const auto pid = ::fork();
      if (pid == 0) {
        char go;
        if (::read(gate[0], &go, 1) != 1) ::_exit(2);
        try {
          const auto lock = RunLock::take(directory);
          std::ofstream(directory / "held", std::ios::app) << "x";
          ::usleep(20000);
          std::ofstream(directory / "held", std::ios::app) << "y";
          ::_exit(0);  // without its destructor: the lock stays, and goes stale
        } catch (const Error&) {
          ::_exit(1);
        }
      }
      children.push_back(pid);
    }
    ASSERT_EQ(::write(gate[1], "gggg", 4), 4);
    for (const auto child : children) ::waitpid(child, nullptr, 0);
    ::close(gate[0]);
    ::close(gate[1]);
    if (fs::exists(directory / "held")) {
      const auto held = read_text(directory / "held");
      EXPECT_EQ(held.find("xx"), std::string::npos) << "two at once: " << held;
    }
  }
}

TEST_F(Slurm, ADamagedLockIsNamed) {
  write("run/lock.1", "{");
  EXPECT_THAT(error_of([&] { RunLock::take(folder_ / "run"); }), HasSubstr("lock file of a run is damaged"));
}

TEST_F(Slurm, ClearingARunKeepsItsLock) {
  const auto lock = RunLock::take(folder_ / "run");
  write("run/metrics.jsonl", "x");
  write("run/checkpoints/step-000001/marker", "x");
  clear_run(folder_ / "run");
  EXPECT_TRUE(holder_of(folder_ / "run").has_value());
  EXPECT_FALSE(fs::exists(folder_ / "run/metrics.jsonl"));
  EXPECT_FALSE(fs::exists(folder_ / "run/checkpoints"));
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
    const Staging staging(staged_run(folder_), Comm());
    EXPECT_TRUE(staging.config().dataset.path.starts_with((folder_ / "scratch/attune-").string()));
    EXPECT_EQ(read_text(staging.config().dataset.path), "data");
    EXPECT_EQ(read_text(fs::path(staging.config().model.path) / "deeper/part.bin"), std::string(40 << 20, 'x'));
  }
  EXPECT_TRUE(fs::is_empty(folder_ / "scratch"));
  ::setenv("ATTUNE_STAGE", "data", 1);
  const Staging data_alone(staged_run(folder_), Comm());
  EXPECT_EQ(data_alone.config().model.path, (folder_ / "model").string());
  ::unsetenv("ATTUNE_STAGE");
  const Staging nothing(staged_run(folder_), Comm());
  EXPECT_EQ(nothing.config().dataset.path, (folder_ / "sums.h5").string());
}

TEST_F(Slurm, AFullScratchIsToldBeforeAnythingIsCopied) {
  write("sums.h5", "");
  fs::resize_file(folder_ / "sums.h5", std::uintmax_t{8} << 40);  // takes no space itself
  ::setenv("ATTUNE_SCRATCH", (folder_ / "scratch").c_str(), 1);
  ::setenv("ATTUNE_STAGE", "data", 1);
  EXPECT_THAT(error_of([&] { Staging(staged_run(folder_), Comm()); }), AllOf(HasSubstr("8.0 TiB are needed and"), HasSubstr("take 'stage' out of the site file")));
  EXPECT_TRUE(fs::is_empty(folder_ / "scratch"));
  ::setenv("ATTUNE_SCRATCH", "/proc/nowhere", 1);
  EXPECT_THAT(error_of([&] { Staging(staged_run(folder_), Comm()); }), HasSubstr("nothing can be written there"));
}

// ---- Progress

TEST_F(Slurm, ProgressIsReadFromARunsFiles) {
  write("run/metrics.jsonl",
        "{\"event\":\"run_begin\",\"step\":0,\"steps\":40}\n"
        "{\"event\":\"step_end\",\"step\":1,\"seconds\":1.0,\"loss\":3.0,\"tokens_per_second\":10.0}\n"
        "{\"event\":\"step_end\",\"step\":11,\"seconds\":6.0,\"loss\":2.0,\"tokens_per_second\":20.0}\n"
        "{\"event\":\"evaluated\",\"step\":11,\"seconds\":7.0,\"evaluation\":{\"loss\":1.5}}\n"
        "{\"event\":\"step_e");
  write("run/record.json", R"({"slurm_job":"8","history":[{"what":"started"},{"what":"interrupted","note":"by signal 15"},{"what":"resumed"}]})");
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
  const auto lock = RunLock::take(folder_ / "run");
  EXPECT_EQ(state_of(read_progress(folder_ / "run"), {}), "training");
}

TEST_F(Slurm, ADirectoryWithoutFilesIsNew) { EXPECT_EQ(state_of(read_progress(folder_), {}), "new"); }

}  // namespace
}  // namespace attune::slurm
