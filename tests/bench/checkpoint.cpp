// How long the training stands still for a checkpoint of SmolLM2-135M trained in full with AdamW
// (1.6 GB): written at once, and staged.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>

#include "checkpoint/writer.hpp"

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds(const std::function<void()>& work) {
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Weights and both moments, in tensors of the sizes that model has.
attune::Snapshot state() {
  attune::Snapshot snapshot;
  const auto add = [&](const std::string& name, at::IntArrayRef shape) {
    for (const char* kind : {"weights/", "exp_avg/", "exp_avg_sq/"})
      snapshot.tensors.emplace_back(kind + name, at::rand(shape));
  };
  add("embedding", {49152, 576});
  for (int block = 0; block < 30; ++block) {
    for (const auto& [name, rows, columns] : {std::tuple{"q", 576, 576},
                                              {"k", 192, 576},
                                              {"v", 192, 576},
                                              {"o", 576, 576},
                                              {"gate", 1536, 576},
                                              {"up", 1536, 576},
                                              {"down", 576, 1536}})
      add(fmt::format("{}.{}", block, name), {rows, columns});
    for (const char* norm : {"norm1", "norm2"}) add(fmt::format("{}.{}", block, norm), {576});
  }
  return snapshot;
}

TEST(Checkpoint, StandsStillForATenthOfTheTimeWhenStaged) {
  // a disk, as a run's folder is on one
  std::string pattern = (fs::current_path() / "build/bench-XXXXXX").string();
  const fs::path root = ::mkdtemp(pattern.data());
  const auto snapshot = state();
  attune::CheckpointWriter writer(root / "checkpoints", {});
  std::vector<double> at_once;
  std::vector<double> begin;
  std::vector<double> behind;
  std::vector<double> publish;
  for (std::int64_t round = 0; round < 5; ++round) {
    at_once.push_back(seconds([&] {
      writer.begin(2 * round, snapshot, /*staged=*/false);
      writer.publish(false);
    }));
    begin.push_back(seconds([&] { writer.begin(2 * round + 1, snapshot, /*staged=*/true); }));
    behind.push_back(seconds([&] {
      while (!writer.part_is_done()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }));
    publish.push_back(seconds([&] { writer.publish(false); }));
    fs::remove_all(root / "checkpoints");
  }
  const double stall = median(begin) + median(publish);
  fmt::print(
      "{:.2f} GB: at once {:.2f} s; staged {:.3f} s to copy (the first time {:.3f} s), {:.2f} s "
      "behind the training, {:.3f} s to publish; stall {:.1f} % of at once\n",
      static_cast<double>(snapshot.bytes()) / 1e9, median(at_once), median(begin), begin.front(),
      median(behind), median(publish), 100 * stall / median(at_once));
  EXPECT_LE(stall, 0.1 * median(at_once));
  fs::remove_all(root);
}

}  // namespace
