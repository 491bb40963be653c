// Plans of steps, and the batches that ranks make of them.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <attune/error.hpp>
#include <gmock/gmock.h>
#include <unistd.h>

#include <map>
#include <numeric>
#include <set>

#include "data/loader.hpp"

namespace attune {
namespace {
namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using Rows = std::vector<std::int64_t>;

std::vector<Rows> rows_of(const std::vector<MicroBatch>& micro_batches) {
  std::vector<Rows> rows;
  for (const auto& micro : micro_batches) rows.push_back(micro.rows);
  return rows;
}

TEST(PlanStep, CutsByCount) {
  const Rows rows{9, 4, 7, 1, 3};
  const Rows lengths{1, 2, 3, 4, 5};
  EXPECT_THAT(rows_of(plan_step(rows, lengths, {.micro_batch = 2})),
              ElementsAre(Rows{9, 4}, Rows{7, 1}, Rows{3}));
}

TEST(PlanStep, CutsByTokensAndALongerSampleStandsAlone) {
  const Rows rows{0, 1, 2, 3, 4, 5};
  const Rows lengths{3, 4, 4, 20, 1, 9};
  const auto plan = plan_step(rows, lengths, {.micro_batch = 1, .micro_tokens = 10});
  EXPECT_THAT(rows_of(plan), ElementsAre(Rows{0, 1}, Rows{2}, Rows{3}, Rows{4, 5}));
  for (const auto& micro : plan) EXPECT_TRUE(micro.tokens() <= 10 || micro.rows.size() == 1);
}

TEST(PlanStep, GroupsByLengthAndKeepsTheOrderOfEquals) {
  const Rows rows{10, 11, 12, 13, 14};
  const Rows lengths{5, 2, 5, 2, 1};
  EXPECT_THAT(rows_of(plan_step(rows, lengths, {.micro_batch = 2, .group_lengths = true})),
              ElementsAre(Rows{14, 11}, Rows{13, 10}, Rows{12}));
}

/// Tokens of the rank that has most, over the mean.
double unevenness(const std::vector<MicroBatch>& plan, const std::vector<std::int64_t>& bounds) {
  std::int64_t most = 0;
  std::int64_t all = 0;
  for (std::size_t rank = 0; rank + 1 < bounds.size(); ++rank) {
    std::int64_t tokens = 0;
    for (auto i = bounds[rank]; i < bounds[rank + 1]; ++i)
      tokens += plan[static_cast<std::size_t>(i)].tokens();
    most = std::max(most, tokens);
    all += tokens;
  }
  return static_cast<double>(most) * static_cast<double>(bounds.size() - 1) /
         static_cast<double>(all);
}

TEST(ShareOut, IsEvenWhateverTheOrderAndKeepsMicroBatchesAsTheyWerePlanned) {
  Rows rows(128);
  Rows lengths(128);
  std::iota(rows.begin(), rows.end(), 0);
  for (std::size_t i = 0; i < lengths.size(); ++i)
    lengths[i] = 20 + static_cast<std::int64_t>(mixed({i}) % 400);
  const auto planned = plan_step(rows, lengths, {.micro_batch = 4});
  for (const int ranks : {2, 4, 8}) {
    auto plan = planned;
    auto in_order = planned;
    const auto bounds = share_out(plan, ranks, false);
    EXPECT_THAT(rows_of(plan), testing::UnorderedElementsAreArray(rows_of(planned)));
    EXPECT_LT(unevenness(plan, bounds), 1.06) << ranks << " ranks";
    EXPECT_LE(unevenness(plan, bounds), unevenness(in_order, share_out(in_order, ranks, true)));
  }
}

TEST(ShareOut, CutsSoThatBothHalvesHaveAboutAsManyTokens) {
  // cut in order, one half would have 320 of 800
  const Rows rows{0, 1, 2, 3, 4, 5, 6, 7};
  const Rows lengths{300, 20, 250, 30, 40, 60, 20, 80};
  auto plan = plan_step(rows, lengths, {.micro_batch = 8});
  EXPECT_LT(unevenness(plan, share_out(plan, 2, false)), 1.03);
}

TEST(ShareOut, IsContiguousAndBalancedByTokensWhenTheOrderIsKept) {
  Rows rows(40);
  Rows lengths(40);
  std::iota(rows.begin(), rows.end(), 0);
  // three quarters of the tokens in a quarter of the rows
  for (std::size_t i = 0; i < lengths.size(); ++i) lengths[i] = i < 10 ? 90 : 10;
  auto plan = plan_step(rows, lengths, {.micro_batch = 2});
  const auto bounds = share_out(plan, 4, true);
  EXPECT_THAT(bounds, ElementsAre(0, 2, 3, 5, 20));
  for (std::size_t rank = 0; rank < 4; ++rank) EXPECT_LT(bounds[rank], bounds[rank + 1]);
}

TEST(ShareOut, LeavesEveryRankWorkHoweverUnevenTheTokensAre) {
  for (const auto& lengths : {Rows{1000, 1, 1, 1}, Rows{1, 1, 1, 1000}, Rows{0, 0, 0, 0}}) {
    const Rows rows{0, 1, 2, 3};
    auto plan = plan_step(rows, lengths, {.micro_batch = 1});
    EXPECT_THAT(share_out(plan, 4, true), ElementsAre(0, 1, 2, 3, 4));
  }
}

TEST(ShareOut, CutsTheLargestMicroBatchesWhenThereAreTooFew) {
  const Rows rows{0, 1, 2, 3, 4, 5, 6, 7};
  const Rows lengths{1, 1, 1, 1, 6, 6, 6, 6};
  auto plan = plan_step(rows, lengths, {.micro_batch = 4});
  EXPECT_THAT(share_out(plan, 4, false), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(rows_of(plan),
              testing::UnorderedElementsAre(Rows{0, 1, 2, 3}, Rows{4}, Rows{5, 7}, Rows{6}))
      << "rows keep their order";
  auto all = plan_step(rows, lengths, {.micro_batch = 8});
  EXPECT_EQ(share_out(all, 8, false).back(), 8);
}

TEST(ShareOut, KeepsMicroBatchesWholeForReproducibleRuns) {
  const Rows rows{0, 1, 2, 3};
  const Rows lengths{1, 1, 1, 1};
  auto plan = plan_step(rows, lengths, {.micro_batch = 2});
  try {
    share_out(plan, 4, true);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("a step has 2 micro-batches for 4 ranks"));
    EXPECT_THAT(error.what(), HasSubstr("lower train.micro_batch"));
  }
}

TEST(Sampler, BlocksOfNeighboursStayTogetherAndEveryRowComesOnce) {
  const auto order = block_permutation(103, 10, 5, 0);
  EXPECT_EQ(std::set<std::int64_t>(order.begin(), order.end()).size(), 103u);
  std::int64_t jumps = 0;
  for (std::size_t i = 1; i < order.size(); ++i) jumps += order[i] != order[i - 1] + 1;
  EXPECT_LE(jumps, 10);
  EXPECT_NE(order, block_permutation(103, 10, 5, 1));
  EXPECT_EQ(block_permutation(103, 1, 5, 2), permutation(103, 5, 2));
}

TEST(Mixed, TellsNumbersAndTheirOrderApart) {
  EXPECT_NE(mixed({1, 2, 3}), mixed({1, 3, 2}));
  EXPECT_NE(mixed({0, 0}), mixed({0, 0, 0}));
  EXPECT_EQ(mixed({1, 2, 3}), mixed({1, 2, 3}));
}

/// Tokens with the seed of augment in a column; refuses a row by its first token.
class Plain final : public Dataset {
 public:
  explicit Plain(std::int64_t refused = -1) : refused_(refused) {}
  Sample encode(const Record&, const EncodeContext&) const override { return {}; }
  Sample augment(Sample sample, std::uint64_t seed) const override {
    sample["seed"] = at::scalar_tensor(static_cast<std::int64_t>(seed >> 1), at::kLong);
    return sample;
  }
  Batch collate(const std::vector<Sample>& samples) const override {
    std::vector<at::Tensor> tokens;
    std::vector<at::Tensor> seeds;
    for (const auto& sample : samples) {
      tokens.push_back(sample.at("tokens"));
      if (tokens.back()[0].item<std::int64_t>() == refused_) fail("row {} is broken", refused_);
      seeds.push_back(sample.at("seed"));
    }
    Batch batch = pack(tokens);
    batch.columns["seed"] = at::stack(seeds);
    return batch;
  }

 private:
  std::int64_t refused_;
};

class Loading : public testing::Test {
 protected:
  static constexpr std::int64_t samples = 50;
  fs::path folder_ = fs::path(testing::TempDir()) / ("attune-loader-" + std::to_string(::getpid()));
  std::unique_ptr<DataFile> file_;
  LoaderOptions options_{.global_batch = 12, .seed = 3, .plan = {.micro_batch = 3}};

  /// Sample i holds 1 + 7 i % 11 times the token i.
  Loading() {
    fs::create_directories(folder_);
    const auto path = folder_ / "data.h5";
    {
      std::vector<at::Tensor> parts;
      std::vector<std::int64_t> offsets{0};
      for (std::int64_t i = 0; i < samples; ++i) {
        parts.push_back(at::full({1 + 7 * i % 11}, i, at::kInt));
        offsets.push_back(offsets.back() + parts.back().size(0));
      }
      const auto root = hdf5::create_file(path);
      root.attributes().set("format", std::string(data_format));
      root.attributes().set("version", data_version);
      const auto train = root.create_group("train");
      train.write("tokens", at::cat(parts));
      train.write("tokens.offsets", at::tensor(offsets, at::kLong));
      train.write("loss_mask", at::full({offsets.back()}, 1, at::kByte));
      train.write("loss_mask.offsets", at::tensor(offsets, at::kLong));
    }
    file_ = std::make_unique<DataFile>(DataFile::open(path));
  }
  ~Loading() override { fs::remove_all(folder_); }
  const Split& split() const { return file_->split("train"); }

  struct Seen {
    std::map<std::int64_t, Rows> step_rows;
    std::map<std::int64_t, std::vector<Rows>> micro_batches;              // those of all ranks
    std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> seeds;  // (step, row)
    bool operator==(const Seen&) const = default;
  };

  void go_through(Loader& loader, std::int64_t from, std::int64_t to, Seen& seen) {
    for (auto step = from; step < to; ++step) {
      const auto& plan = loader.begin_step(step);
      EXPECT_EQ(plan.step, step);
      seen.step_rows[step] = plan.rows;
      for (auto i = plan.first; i < plan.end; ++i) {
        const auto batch = loader.next();
        EXPECT_EQ(batch.ids, plan.micro_batches[static_cast<std::size_t>(i)].rows);
        seen.micro_batches[step].push_back(batch.ids);
        for (std::int64_t b = 0; b < batch.samples(); ++b) {
          const auto row = batch.ids[static_cast<std::size_t>(b)];
          EXPECT_EQ(batch.starts[static_cast<std::size_t>(b) + 1] -
                        batch.starts[static_cast<std::size_t>(b)],
                    1 + 7 * row % 11);
          EXPECT_EQ(batch.tokens[batch.starts[static_cast<std::size_t>(b)]].item<std::int64_t>(),
                    row);
          seen.seeds[{step, row}] = batch.columns.at("seed")[b].item<std::int64_t>();
        }
      }
    }
  }

  Seen over(int ranks, std::size_t ahead) {
    options_.ahead = ahead;
    Seen seen;
    for (int rank = 0; rank < ranks; ++rank) {
      const Plain dataset;
      Loader loader(split(), dataset, options_, rank, ranks);
      go_through(loader, 0, 9, seen);  // more than two epochs
    }
    // who computes which is free
    for (auto& [step, micro_batches] : seen.micro_batches)
      std::sort(micro_batches.begin(), micro_batches.end());
    return seen;
  }
};

TEST_F(Loading, HiddenStatesGoWithTheirRows) {
  const auto path = folder_ / "hidden.h5";
  {
    HiddenWriter writer(path, "key", at::zeros({0, 2, 3}));
    for (std::int64_t row = 0; row < samples; ++row) {
      const std::int64_t positions = 1 + 7 * row % 11;
      writer.append(at::full({positions, 2, 3}, row, at::kFloat), {&positions, 1});
    }
    EXPECT_EQ(HiddenStates::open(path, "key", {}), nullptr) << "there only when it is whole";
    writer.finish();
  }
  EXPECT_EQ(HiddenStates::open(path, "another", {}), nullptr);
  options_.hidden = HiddenStates::open(path, "key", {});
  ASSERT_NE(options_.hidden, nullptr);
  EXPECT_EQ(options_.hidden->rows(), samples);
  const Plain dataset;
  Loader loader(split(), dataset, options_);
  for (std::int64_t step = 0; step < 5; ++step) {
    const auto& plan = loader.begin_step(step);
    for (auto i = plan.first; i < plan.end; ++i) {
      const auto batch = loader.next();
      ASSERT_EQ(batch.hidden.sizes(), at::IntArrayRef({batch.length(), 2, 3}));
      EXPECT_TRUE(batch.hidden.select(1, 1).select(1, 2).equal(batch.tokens.to(at::kFloat)));
    }
  }
}

TEST_F(Loading, AHiddenFileThatWasNotFinishedLeavesNothing) {
  {
    const HiddenWriter writer(folder_ / "hidden.h5", "key", at::zeros({0, 4}));
  }
  for (const auto& entry : fs::directory_iterator(folder_))
    EXPECT_EQ(entry.path().filename(), "data.h5");
}

TEST_F(Loading, LengthsCountTokensAndNotTheirMask) {
  const auto lengths = sample_lengths(split());
  EXPECT_EQ(lengths.size(), static_cast<std::size_t>(samples));
  EXPECT_EQ(lengths[3], 1 + 21 % 11);
}

TEST_F(Loading, OneTwoAndFourRanksSeeTheSameOrderAndMicroBatches) {
  for (const auto& plan : {PlanOptions{.micro_batch = 3}, PlanOptions{.micro_tokens = 16},
                           PlanOptions{.micro_tokens = 16, .group_lengths = true}}) {
    options_.plan = plan;
    const auto one = over(1, 4);
    EXPECT_EQ(one.step_rows.size(), 9u);
    EXPECT_EQ(one, over(2, 4));
    EXPECT_EQ(one, over(4, 4));
  }
}

TEST_F(Loading, ReadingAheadChangesNothing) {
  const auto without = over(2, 0);
  EXPECT_EQ(without, over(2, 1));
  EXPECT_EQ(without, over(2, 100));
}

TEST_F(Loading, BlocksAreShuffledAlikeOnAnyNumberOfRanks) {
  options_.shuffle_block = 5;
  const auto one = over(1, 2);
  EXPECT_EQ(one, over(4, 2));
  options_.shuffle_block = 1;
  EXPECT_NE(one.step_rows, over(1, 2).step_rows);
}

TEST_F(Loading, AnEpochHoldsEveryRowOnce) {
  options_.global_batch = 10;
  const auto seen = over(1, 4);
  std::multiset<std::int64_t> rows;
  for (std::int64_t step = 0; step < 5; ++step)
    rows.insert(seen.step_rows.at(step).begin(), seen.step_rows.at(step).end());
  EXPECT_EQ(rows.size(), 50u);
  EXPECT_EQ(std::set<std::int64_t>(rows.begin(), rows.end()).size(), 50u);
}

TEST_F(Loading, AnyStepCanBeTheNext) {
  const Plain dataset;
  Loader loader(split(), dataset, options_);
  Seen in_order;
  Seen resumed;
  go_through(loader, 0, 6, in_order);
  go_through(loader, 4, 6, resumed);
  EXPECT_EQ(resumed.micro_batches.at(4), in_order.micro_batches.at(4));
  EXPECT_EQ(resumed.micro_batches.at(5), in_order.micro_batches.at(5));
  loader.begin_step(2);
  loader.next();
  Seen after_a_part;
  go_through(loader, 3, 4, after_a_part);
  EXPECT_EQ(after_a_part.micro_batches.at(3), in_order.micro_batches.at(3));
}

TEST_F(Loading, SeedsOfAugmentationDifferFromStepToStep) {
  const auto seen = over(1, 4);
  std::set<std::int64_t> distinct;
  for (const auto& [place, seed] : seen.seeds) distinct.insert(seed);
  EXPECT_EQ(distinct.size(), seen.seeds.size());
}

TEST_F(Loading, AnErrorOfTheThreadSurfacesAtItsBatch) {
  for (const std::size_t ahead : {0, 4}) {
    options_.ahead = ahead;
    const Plain dataset(7);
    Loader loader(split(), dataset, options_);
    Seen seen;
    try {
      go_through(loader, 0, 9, seen);
      FAIL() << "accepted";
    } catch (const Error& error) {
      EXPECT_STREQ(error.what(), "row 7 is broken");
    }
    for (const auto& [step, micro_batches] : seen.micro_batches)
      for (const auto& micro : micro_batches)
        EXPECT_THAT(micro, testing::Not(testing::Contains(7)));
  }
}

TEST_F(Loading, WhatDoesNotFitIsRefusedBeforeTheFirstStep) {
  const Plain dataset;
  options_.global_batch = 51;
  EXPECT_THROW(Loader(split(), dataset, options_), Error);
  options_.global_batch = 3;
  EXPECT_THROW(Loader(split(), dataset, options_, 0, 4), Error);
  options_ = {.global_batch = 12, .plan = {.micro_batch = 6}, .reproducible = true};
  Loader loader(split(), dataset, options_, 0, 4);
  EXPECT_THROW(loader.begin_step(0), Error);
}

}  // namespace
}  // namespace attune
