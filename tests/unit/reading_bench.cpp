// How long the loop waits for data: 16 samples of 512 tokens a step, at random places of a file of
// 20 million tokens.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "core/stopwatch.hpp"
#include "data/loader.hpp"

namespace attune {
namespace {
namespace fs = std::filesystem;

struct Tokens final : Dataset {
  Sample encode(const Record&, const EncodeContext&) const override { return {}; }
  Batch collate(const std::vector<Sample>& samples) const override {
    std::vector<at::Tensor> tokens;
    std::vector<at::Tensor> targets;
    for (const auto& sample : samples) {
      tokens.push_back(sample.at("tokens"));
      targets.push_back(next_token_targets(sample.at("tokens"), sample.at("loss_mask")));
    }
    Batch batch = pack(tokens);
    batch.targets = at::cat(targets);
    return batch;
  }
};

void write_file(const fs::path& path, std::int64_t samples, std::int64_t length) {
  const auto root = hdf5::create_file(path);
  root.attributes().set("format", std::string(data_format));
  root.attributes().set("version", data_version);
  const auto train = root.create_group("train");
  const auto tokens = at::arange(samples * length, at::kInt);
  const auto offsets = at::arange(0, samples * length + 1, length, at::kLong);
  const std::pair<const char*, at::Tensor> columns[] = {{"tokens", tokens},
                                                        {"loss_mask", tokens.ne(0).to(at::kByte)}};
  for (const auto& [name, values] : columns) {
    // in chunks as prepare makes them
    train.create_dataset(name, values.scalar_type(), values.sizes().vec()).write(0, values);
    train.create_dataset(std::string(name) + offsets_suffix, at::kLong, offsets.sizes().vec())
        .write(0, offsets);
  }
}

TEST(Reading, KeepsTheLoopWaitingForUnderOnePercentOfAStep) {
  const auto path =
      fs::path(testing::TempDir()) / ("attune-reading-" + std::to_string(::getpid()) + ".h5");
  write_file(path, 40'000, 512);
  const auto file = DataFile::open(path);
  const Tokens dataset;
  constexpr std::int64_t steps = 40;
  // of a micro-batch: a small model on a fast machine
  constexpr auto compute = std::chrono::milliseconds(25);
  std::printf("%-40s %12s %12s\n", "", "ms a step", "waited");
  for (const std::int64_t block : {1, 16})
    for (const std::size_t ahead : {0, 4}) {
      Loader loader(file.split("train"), dataset,
                    {.global_batch = 16,
                     .seed = 1,
                     .shuffle_block = block,
                     .plan = {.micro_batch = 4},
                     .ahead = ahead});
      double before = 0;
      Stopwatch watch;
      for (std::int64_t step = 0; step <= steps; ++step) {
        // the first step reads the offsets, once a run
        if (step == 1) {
          before = loader.waited_seconds();
          watch = {};
        }
        const auto& plan = loader.begin_step(step);
        for (auto i = plan.first; i < plan.end; ++i) {
          loader.next();
          std::this_thread::sleep_for(compute);
        }
      }
      const double all = watch.seconds();
      const double waited = loader.waited_seconds() - before;
      std::printf("%-40s %12.2f %11.2f%%\n",
                  fmt::format("shuffle_block {}, {} read ahead", block, ahead).c_str(),
                  1e3 * all / steps, 100 * waited / all);
      if (ahead > 0) {
        EXPECT_LT(waited / all, 0.01);
      }
    }
  fs::remove(path);
}

}  // namespace
}  // namespace attune
