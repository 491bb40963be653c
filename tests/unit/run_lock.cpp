// The lock of a run directory, and how the directory is cleared.
#include "run_directory/lock.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/wait.h>

#include <nlohmann/json.hpp>

#include "core/process.hpp"
#include "errors.hpp"
#include "run_directory/clear.hpp"
#include "run_files.hpp"

namespace attune::run_directory {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class RunLocks : public RunFiles {};

/// Of a machine without a scheduler.
std::optional<bool> nobody_asks(const std::string&) { return std::nullopt; }

/// A process that has ended, and is known to have.
std::int64_t ended_process() {
  const auto pid = ::fork();
  if (pid == 0) ::_exit(0);
  ::waitpid(pid, nullptr, 0);
  return pid;
}

TEST_F(RunLocks, ADirectoryInUseIsRefusedWithItsHolder) {
  const auto lock = RunLock::take(folder_ / "run", nobody_asks);
  const auto said = error_of([&] { RunLock::take(folder_ / "run", nobody_asks); });
  EXPECT_THAT(said,
              AllOf(HasSubstr("is in use by process"), HasSubstr(std::to_string(::getpid()))));
  EXPECT_THAT(error_of([&] { refuse_live_holder(folder_ / "run", nobody_asks); }),
              HasSubstr("is in use by"));
}

TEST_F(RunLocks, ALockGoesWithItsRun) {
  {
    const auto lock = RunLock::take(folder_ / "run", nobody_asks);
  }
  EXPECT_FALSE(holder_of(folder_ / "run").has_value());
  const auto lock = RunLock::take(folder_ / "run", nobody_asks);
  EXPECT_EQ(holder_of(folder_ / "run")->pid, ::getpid());
}

TEST_F(RunLocks, AStaleLockOfThisMachineIsTakenOver) {
  auto dead = Holder::this_process();
  dead.pid = ended_process();
  write("run/lock.1", dead.text());
  const auto lock = RunLock::take(folder_ / "run", nobody_asks);
  EXPECT_EQ(holder_of(folder_ / "run")->pid, ::getpid());
  EXPECT_FALSE(fs::exists(folder_ / "run/lock.1"));
}

TEST_F(RunLocks, APidThatIsUsedAgainIsNoLife) {
  auto other = Holder::this_process();
  other.started = "1";
  EXPECT_EQ(life_of(other, Holder::this_process(), nobody_asks), Life::gone);
}

TEST_F(RunLocks, AJobsEarlierAttemptDoesNotHoldItUp) {
  auto before = Holder::this_process();
  auto now = before;
  before.host = "n2";
  before.job = now.job = "12_3";
  EXPECT_EQ(life_of(before, now, nobody_asks), Life::gone);
}

TEST_F(RunLocks, OfManyAtOnceOneAtMostHolds) {
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
          const auto lock = RunLock::take(directory, nobody_asks);
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

TEST_F(RunLocks, ADamagedLockIsNamed) {
  write("run/lock.1", "{");
  const auto said = error_of([&] { RunLock::take(folder_ / "run", nobody_asks); });
  EXPECT_THAT(said, AllOf(HasSubstr("run/lock.1: "), HasSubstr("lock file of a run is damaged")));
}

TEST_F(RunLocks, ClearingARunKeepsItsLock) {
  const auto lock = RunLock::take(folder_ / "run", nobody_asks);
  write("run/metrics.jsonl", "x");
  write("run/checkpoints/step-000001/marker", "x");
  clear_run(folder_ / "run");
  EXPECT_TRUE(holder_of(folder_ / "run").has_value());
  EXPECT_FALSE(fs::exists(folder_ / "run/metrics.jsonl"));
  EXPECT_FALSE(fs::exists(folder_ / "run/checkpoints"));
}

TEST_F(RunLocks, ClearingARunLeavesWhatIsNotOfIt) {
  write("run/metrics.jsonl", "x");
  write("run/record.json", "{}");
  write("run/adapter/adapter_model.safetensors", "x");
  write("run/slurm-12.log", "maybe of the job that this is");
  write("run/notes.txt", "mine");
  write("run/plots/loss.png", "mine");
  EXPECT_EQ(clear_run(folder_ / "run"), (std::vector<std::string>{"notes.txt", "plots"}));
  for (const char* left : {"slurm-12.log", "notes.txt", "plots/loss.png"})
    EXPECT_TRUE(fs::exists(folder_ / "run" / left)) << left;
  for (const char* gone : {"metrics.jsonl", "record.json", "adapter"})
    EXPECT_FALSE(fs::exists(folder_ / "run" / gone)) << gone;
}

TEST_F(RunLocks, ADirectoryThatHoldsOtherRunsIsNotCleared) {
  write("runs/metrics.jsonl", "x");
  write("runs/first/run.toml", "x");
  EXPECT_THAT(error_of([&] { clear_run(folder_ / "runs"); }),
              HasSubstr("contains another run, first, and is not replaced"));
  EXPECT_TRUE(fs::exists(folder_ / "runs/metrics.jsonl")) << "nothing is removed";
}

TEST_F(RunLocks, ALockKnowsWhetherItsDirectoryWasRemovedOrTakenByAnother) {
  {
    const auto lock = RunLock::take(folder_ / "run", nobody_asks);
    EXPECT_TRUE(lock.is_held());
    fs::rename(folder_ / "run", folder_ / "away");
    EXPECT_FALSE(lock.is_held());
    write("run/lock.1", "{}\n");
    EXPECT_FALSE(lock.is_held());
  }
  EXPECT_TRUE(fs::exists(folder_ / "run/lock.1")) << "the lock of another is not removed";
}

TEST_F(RunLocks, ALockOfAJobElsewhereIsJudgedByWhoAsks) {
  const auto me = Holder::this_process();
  auto there = me;
  there.host = "n2";
  there.job = "12";
  const auto says = [](std::optional<bool> answer) {
    return [answer](const std::string& job) { return job == "12" ? answer : std::nullopt; };
  };
  EXPECT_EQ(life_of(there, me, says(true)), Life::alive);
  EXPECT_EQ(life_of(there, me, says(false)), Life::gone);
  EXPECT_EQ(life_of(there, me, says(std::nullopt)), Life::unknown);
}

TEST_F(RunLocks, ALockOfAnEarlierAttuneHasNoVersionAndOneOfANewerIsNamed) {
  auto json = nlohmann::json::parse(Holder::this_process().text());
  EXPECT_EQ(json["version"], 1);
  json.erase("version");
  json.erase("format");
  EXPECT_EQ(Holder::parse(json.dump()).pid, ::getpid());
  json["version"] = 2;
  write("run/lock.1", json.dump());
  const auto said = error_of([&] { RunLock::take(run_, nobody_asks); });
  EXPECT_THAT(said, AllOf(HasSubstr("run/lock.1: "), HasSubstr("has version 2 of attune-lock"),
                          HasSubstr("use the Attune that wrote it")));
}

TEST(Process, ItsNameMayHoldAnything) {
  const auto status =
      parse_process_status("7 (a) S (b c)) R 1 2 3 4 5 6 7 8 9 10 30 12 13 14 15 16 17 18 9876 20");
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(status->name, "a) S (b c)");
  EXPECT_EQ(status->state, 'R');
  EXPECT_EQ(status->ticks, 42);
  EXPECT_EQ(status->started, "9876");
  for (const char* broken : {"", "7 (a", ")(", "7 (a) R 1 2 3"})
    EXPECT_FALSE(parse_process_status(broken)) << broken;
  EXPECT_FALSE(process_status(::getpid())->started.empty());
}

}  // namespace
}  // namespace attune::run_directory
