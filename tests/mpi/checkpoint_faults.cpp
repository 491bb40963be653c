// A save whose file-system calls fail, one after the other, each in several ways: the older
// checkpoint stays usable, nothing half-written is taken for whole, and the next save works. Runs
// with faulty_io.so in LD_PRELOAD.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cerrno>
#include <filesystem>
#include <sstream>

#include "checkpoint/writer.hpp"
#include "loaded.hpp"

namespace {

namespace fs = std::filesystem;

const auto arm = reinterpret_cast<void (*)(const char*)>(dlsym(RTLD_DEFAULT, "faulty_io_arm"));
const auto struck = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "faulty_io_struck"));

attune::Snapshot snapshot(std::int64_t n) {
  return {.tensors = {{"w", at::full({3000, 100}, static_cast<double>(n))},
                      {"b", at::full({7}, static_cast<double>(n))}},
          .texts = {{"t", "text"}},
          .numbers = {{"n", n}}};
}

void save(const fs::path& folder, std::int64_t step) {
  attune::CheckpointWriter writer(folder, {});
  writer.begin(step, snapshot(step), /*staged=*/true);
  writer.publish(/*best=*/false);
}

class Faults : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(arm && struck) << "run with LD_PRELOAD=faulty_io.so";
    std::string pattern = (fs::temp_directory_path() / "attune-faults-XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override {
    arm("");
    fs::remove_all(root_);
  }

  /// The nth call fails in a save of step 2, while step 1 is there. Returns whether there was such
  /// a call.
  bool survives(const std::string& call, int n, int error) {
    const auto folder = root_ / fmt::format("{}-{}-{}", call, n, error) / "checkpoints";
    save(folder, 1);
    arm(fmt::format("{}:{}:{}:checkpoints", call, n, error).c_str());
    bool failed = false;
    std::string why;
    try {
      save(folder, 2);
    } catch (const std::exception& problem) {
      failed = true;
      why = problem.what();
    }
    const bool happened = struck() > 0;
    arm("");
    const auto where =
        fmt::format("{} {} failing with {}: {}", call, n, error, failed ? why : "saved");
    EXPECT_TRUE(happened || !failed) << where;
    std::ostringstream warnings;
    const auto newest = attune::newest_checkpoint(folder, {}, warnings);
    EXPECT_TRUE(newest.has_value()) << where;
    if (!newest) return happened;
    const auto loaded = attune::load_checkpoint(*newest, {});
    const auto step = loaded.numbers.at("n");
    EXPECT_TRUE(step == 2 || (failed && step == 1))
        << where << ", and step " << step << " is the newest";
    EXPECT_TRUE(loaded.tensors.at(0).tensor.equal(snapshot(step).tensors.at(0).tensor)) << where;
    EXPECT_EQ(warnings.str(), "") << where;  // nothing half-written under a final name
    save(folder, 3);
    EXPECT_EQ(attune::load_checkpoint(folder / "step-000003", {}).numbers.at("n"), 3) << where;
    return happened;
  }

  fs::path root_;
};

TEST_F(Faults, InAnyCallOfASaveLeaveTheOlderCheckpointUsable) {
  for (const std::string call : {"write", "fsync", "rename", "mkdir", "open"})
    for (const int error : {ENOSPC, EIO, EROFS, 0}) {
      if (error == 0 && call != "write") continue;  // only writes can be short
      int n = 1;
      while (survives(call, n, error)) ++n;
      RecordProperty(call + std::to_string(error), n - 1);
      fmt::print("{} calls of {} failed with {}\n", n - 1, call,
                 error ? std::strerror(error) : "half of it written");
      if (call != "open") {
        EXPECT_GT(n, 1) << "a save makes no call of " << call;
      }
    }
}

}  // namespace
