// Shards: what the ranks of a group hold together is what one of them would hold alone, in updates,
// norms and checkpoints.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <attune/registry.hpp>
#include <cstring>
#include <filesystem>

#include "checkpoint/writer.hpp"
#include "errors.hpp"
#include "loaded.hpp"
#include "parallel/gathering.hpp"
#include "parallel/mpi.hpp"
#include "parallel/node_memory.hpp"
#include "parallel/shard.hpp"
#include "parallel/wide_gradients.hpp"
#include "registry/loader.hpp"
#include "train/updater.hpp"
#include "weights/safetensors.hpp"

namespace attune::train {
namespace {

namespace fs = std::filesystem;
using parallel::Shard;
using parallel::ShardPlan;
using testing::HasSubstr;

const Comm& all() {
  static const Comm comm = attune::world();
  return comm;
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  const auto x = a.detach().contiguous();
  const auto y = b.detach().contiguous();
  return x.sizes() == y.sizes() && std::memcmp(x.data_ptr(), y.data_ptr(), x.nbytes()) == 0;
}

/// One larger than a rank's share, some smaller than a piece may be, one that is not contiguous, a
/// scalar, and two in another dtype, with masters.
std::vector<NamedTensor> some_parameters() {
  torch::manual_seed(1);
  const auto with_master = [](const at::Tensor& values) {
    auto parameter = values.to(at::kBFloat16).requires_grad_();
    parallel::widen_gradient(parameter);
    return parameter;
  };
  return {{"block.large", torch::randn({97, 130}).requires_grad_()},
          {"block.bias", torch::randn({7}).requires_grad_()},
          {"block.turned", torch::randn({40, 60}).t().requires_grad_()},
          {"head", torch::randn({33, 71}).requires_grad_()},
          {"scale", torch::randn({}).requires_grad_()},
          {"rounded", with_master(torch::randn({5, 700}))},
          {"rounded.turned", with_master(torch::randn({20, 30}).t())}};
}

void set_gradients(const std::vector<NamedTensor>& parameters, int step) {
  torch::manual_seed(100 + step);
  for (const auto& [name, parameter] : parameters)
    at::Tensor(parameter).mutable_grad() =
        torch::randn(parameter.sizes()).to(parallel::gradient_dtype(parameter));
}

std::vector<ParameterGroup> groups_of(const std::vector<NamedTensor>& parameters) {
  return {{{parameters.begin(), parameters.begin() + 3}, 1.0, 1.0},
          {{parameters.begin() + 3, parameters.end()}, 0.5, 0.0}};
}

const Registry& registry() {
  static const Registry registry = [] {
    Registry loaded;
    load_plugins(loaded, {ATTUNE_BINARY_DIR "/plugins"});
    return loaded;
  }();
  return registry;
}

Updater updater(const std::string& name, const std::vector<NamedTensor>& parameters,
                const Comm& sharing) {
  const auto& entry = registry().find(Kind::optimizer, name);
  auto optimizer =
      std::static_pointer_cast<Optimizer>(entry.build(entry.defaults().get(), nullptr));
  const auto collectives = sharing.size() > 1 ? parallel::make_process_group(sharing) : nullptr;
  return {optimizer, parameters, groups_of(parameters), 0.1, {"block."}, {sharing, collectives}};
}

/// Takes so many steps; returns the norms.
std::vector<double> train(Updater& updater, int first, int count) {
  std::vector<double> norms;
  for (int step = first; step < first + count; ++step) {
    set_gradients(updater.parameters(), step);
    const auto gradients = updater.gradients();
    norms.push_back(updater.norm_of(gradients));
    updater.step(gradients, 1e-2, clipped(0.5, norms.back(), 1.0));
  }
  return norms;
}

void expect_same(const std::vector<NamedTensor>& ours, const std::vector<NamedTensor>& theirs,
                 const std::string& what) {
  for (std::size_t i = 0; i < ours.size(); ++i)
    EXPECT_TRUE(same_bits(ours[i].second, theirs[i].second)) << what << ": " << ours[i].first;
}

TEST(ShardPlan, EveryNumberIsOnOneRankAndEachHasItsShare) {
  const auto parameters = some_parameters();
  std::int64_t numbers = 0;
  for (const auto& [name, tensor] : parameters) numbers += tensor.numel();
  for (const int ranks : {1, 2, 3, 4, 7, 64})
    for (const auto cut : {ShardPlan::Cut::anywhere, ShardPlan::Cut::between_tensors}) {
      const ShardPlan plan(parameters, ranks, cut);
      std::vector<std::int64_t> next(parameters.size(), 0);  // of each, the first not yet held
      for (int rank = 0; rank < ranks; ++rank) {
        std::int64_t held = 0;
        for (const auto& range : plan.of_rank(rank)) {
          EXPECT_EQ(range.first, next[range.tensor]);
          EXPECT_EQ(range.first % parallel::shard_grain, 0);
          next[range.tensor] += range.count;
          held += range.count;
        }
        if (cut == ShardPlan::Cut::anywhere) {
          EXPECT_LE(held, numbers / ranks + 2400 + parallel::shard_grain)
              << "no more than its share, the tensor that is never cut, and a grain";
        }
      }
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        EXPECT_EQ(next[i], parameters[i].second.numel()) << parameters[i].first;
        EXPECT_FALSE(plan.is_cut(i) && cut == ShardPlan::Cut::between_tensors);
        EXPECT_FALSE(plan.is_cut(i) && !parameters[i].second.is_contiguous());
      }
    }
}

TEST(ShardPlan, OfEveryBucketEachRankHasItsShare) {
  const auto parameters = some_parameters();
  const auto buckets = parallel::buckets_of(parameters);
  EXPECT_EQ(buckets, (parallel::Buckets{{0, 1, 2, 3, 4}, {5, 6}})) << "one dtype in each";
  for (const int ranks : {1, 2, 3, 4, 7})
    for (const auto cut : {ShardPlan::Cut::anywhere, ShardPlan::Cut::between_tensors}) {
      const ShardPlan plan(parameters, ranks, cut, buckets);
      for (std::size_t bucket = 0; bucket < buckets.size(); ++bucket) {
        std::vector<std::int64_t> next(parameters.size(), 0);
        std::int64_t numbers = 0;
        for (const auto i : buckets[bucket]) numbers += parameters[i].second.numel();
        for (int rank = 0; rank < ranks; ++rank) {
          std::int64_t held = 0;
          for (const auto& range : plan.of_rank(rank, bucket)) {
            EXPECT_EQ(std::ranges::count(buckets[bucket], range.tensor), 1);
            EXPECT_EQ(range.first, next[range.tensor]) << "after those of the rank before";
            next[range.tensor] += range.count;
            held += range.count;
          }
          EXPECT_EQ(held, plan.sizes(bucket)[static_cast<std::size_t>(rank)]);
          if (cut == ShardPlan::Cut::anywhere) {
            EXPECT_LE(held, numbers / ranks + 2400 + parallel::shard_grain);
          }
        }
        for (const auto i : buckets[bucket]) EXPECT_EQ(next[i], parameters[i].second.numel());
      }
    }
}

TEST(ShardPlan, LargeTensorsAreBucketsOfTheirOwn) {
  const auto of_mebibytes = [](std::int64_t n) {
    return torch::empty({n << 18}, at::kMeta).requires_grad_();
  };
  const std::vector<NamedTensor> tensors{{"a", of_mebibytes(10)},
                                         {"b", of_mebibytes(15)},
                                         {"c", of_mebibytes(1)},
                                         {"d", of_mebibytes(100)},
                                         {"e", of_mebibytes(1)}};
  EXPECT_EQ(parallel::buckets_of(tensors), (parallel::Buckets{{0, 1}, {2}, {3}, {4}}));
}

TEST(Shards, OfPiecesTheWholeIsPutTogether) {
  const auto whole = torch::randn({3, 1000});
  const Shard first = Shard::of("w", whole, 0, 1024);
  const Shard last = Shard::of("w", whole, 1024, 3000 - 1024);
  EXPECT_FALSE(first.is_whole());
  EXPECT_TRUE(first.tensor.is_alias_of(whole)) << "a piece is no copy";
  const auto made = parallel::put_together({last, {"b", torch::ones({2})}, first, last});
  ASSERT_EQ(made.size(), 2u);
  EXPECT_EQ(made[0].first, "w");
  EXPECT_TRUE(made[0].second.equal(whole));
  const auto refusal = [](const std::vector<Shard>& shards) {
    return error_of([&] { parallel::put_together(shards); });
  };
  EXPECT_THAT(refusal({first}), HasSubstr("of 'w' 1024 numbers are there, of 3000"));
  EXPECT_THAT(refusal({last}), HasSubstr("of 'w' 0 numbers are there, of 3000"));
  auto other = last;
  other.shape = {1000, 3};
  EXPECT_THAT(refusal({first, other}), HasSubstr("pieces of 'w' do not belong together"));
  auto huge = first;
  huge.shape = {std::int64_t{1} << 40, std::int64_t{1} << 40};
  EXPECT_THAT(refusal({huge}), HasSubstr("of 'w' 1024 numbers are there"));
  auto outside = last;
  outside.offset = 2000;
  auto before = first;
  before.offset = -1;
  auto negative = first;
  negative.shape = {-3, -1000};
  for (const auto& wrong : {outside, before, negative, Shard("w", torch::ones({1}))})
    for (const auto& pieces : {std::vector{Shard("w", whole), wrong}, {wrong, first, last}})
      EXPECT_THAT(refusal(pieces), HasSubstr("pieces of 'w' do not belong together"));
}

TEST(Shards, SharedUpdatesAreThoseOfOneRank) {
  for (const auto& name : registry().names(Kind::optimizer)) {
    const auto alone = some_parameters();
    const auto shared = some_parameters();
    auto one = updater(name, alone, Comm());
    auto many = updater(name, shared, all());
    EXPECT_EQ(train(one, 0, 4), train(many, 0, 4)) << name << ": the norms";
    expect_same(shared, alone, name);
    double own = 0;
    double whole = 0;
    for (const auto& kept : many.state()) own += static_cast<double>(kept.tensor.nbytes());
    for (const auto& kept : one.state()) whole += static_cast<double>(kept.tensor.nbytes());
    std::vector<double> sum{own};
    parallel::sum_in_place(sum, all());
    // a state of no dimension is with every piece of its parameter
    EXPECT_LE(sum[0], whole + 64 * all().size()) << name << ": each number's state is on one rank";
  }
}

/// Groups of ranks that stand for nodes: all on one, pairs, the first one alone, each alone.
std::vector<Comm> some_nodes() {
  const int rank = all().rank();
  return {all(), all().split(rank / 2), all().split(std::min(rank, 1)), all().split(rank)};
}

bool is_held_once(const std::vector<NamedTensor>& parameters) {
  return std::ranges::all_of(
      parameters, [](const auto& named) { return parallel::NodeMemory::holds(named.second); });
}

TEST(NodeParameters, UpdatesAreThoseOfOneRank) {
  for (const auto& name : registry().names(Kind::optimizer))
    for (const auto& node : some_nodes()) {
      const auto alone = some_parameters();
      const auto shared = some_parameters();
      auto one = updater(name, alone, Comm());
      auto many = updater(name, shared, all());
      EXPECT_EQ(many.hold_once_per_node(node), "");
      EXPECT_EQ(is_held_once(shared), node.size() > 1);
      EXPECT_EQ(train(one, 0, 4), train(many, 0, 4)) << name << ": the norms";
      expect_same(shared, alone, name);
      all().barrier();
    }
}

/// Values travel between nodes once, and not within them.
TEST(NodeParameters, SendWhatOtherNodesUpdate) {
  std::int64_t bytes = 0;
  for (const auto& [name, parameter] : some_parameters())
    bytes += static_cast<std::int64_t>(parameter.nbytes());
  for (const auto& node : some_nodes()) {
    const auto shared = some_parameters();
    auto many = updater("adamw", shared, all());
    many.hold_once_per_node(node);
    const auto gathered = [] { return parallel::traffic_of_ranks(all())["all_gather"].bytes; };
    const auto before = gathered();
    set_gradients(shared, 0);
    many.step(many.gradients(), 1e-2, 1);
    const auto sent = gathered() - before;
    const auto largest = all().max(node.size());
    const bool is_table = all().max(-node.size()) == -largest;
    if (node.size() == all().size()) {
      EXPECT_EQ(sent, 0);
    } else if (is_table) {
      EXPECT_EQ(sent, bytes) << "each number by one rank";
    }
  }
}

TEST(NodeParameters, MayBeChangedByUpdatesAlone) {
  if (all().size() == 1) return;
  const auto shared = some_parameters();
  auto many = updater("adamw", shared, all());
  many.hold_once_per_node(all());
  train(many, 0, 2);
  many.check_unchanged();
  {
    const torch::NoGradGuard no_grad;
    if (all().rank() == 1) at::Tensor(shared[3].second).mul_(2);
  }
  const auto refusal = [&] { return error_of([&] { many.check_unchanged(); }); };
  if (all().rank() == 1)
    EXPECT_THAT(refusal(), HasSubstr("'head' was changed by a plugin, not by the optimizer"));
  else
    EXPECT_EQ(refusal(), "no error");
  many.accept_values();
  EXPECT_EQ(refusal(), "no error");
  at::Tensor(shared[0].second).set_data(shared[0].second.detach().clone());
  EXPECT_THAT(refusal(), HasSubstr("'block.large' was changed by a plugin")) << "replaced";
}

TEST(Shards, OfGradientsAreSpreadToEveryRank) {
  const auto parameters = some_parameters();
  auto shared = updater("adamw", parameters, all());
  set_gradients(parameters, 0);
  const auto shards = shared.gradients();
  for (const auto& [name, parameter] : parameters)
    if (all().size() > 1) at::Tensor(parameter).mutable_grad() = at::Tensor();
  shared.spread(shards);
  const auto expected = some_parameters();
  set_gradients(expected, 0);
  for (std::size_t i = 0; i < parameters.size(); ++i)
    EXPECT_TRUE(parameters[i].second.grad().equal(expected[i].second.grad()))
        << parameters[i].first;
}

TEST(Shards, FrozenParametersStayOnEveryRank) {
  const auto alone = some_parameters();
  const auto shared = some_parameters();
  auto one = updater("adamw", alone, Comm());
  auto many = updater("adamw", shared, all());
  for (const auto* parameters : {&alone, &shared}) {
    at::Tensor((*parameters)[0].second).set_requires_grad(false);
    at::Tensor((*parameters)[4].second).set_requires_grad(false);
  }
  train(one, 0, 2);
  train(many, 0, 2);
  expect_same(shared, alone, "frozen");
}

/// A fresh folder, the same for all ranks.
class SharedCheckpoints : public testing::Test {
 protected:
  void SetUp() override {
    std::string root;
    if (all().root()) {
      std::string pattern = (fs::temp_directory_path() / "attune-shards-XXXXXX").string();
      root = ::mkdtemp(pattern.data());
    }
    folder_ = all().broadcast(root);
  }
  void TearDown() override {
    all().barrier();
    if (all().root()) fs::remove_all(folder_);
  }

  fs::path folder_;
};

TEST_F(SharedCheckpoints, AreResumedByAnyNumberOfRanks) {
  for (const auto& name : registry().names(Kind::optimizer)) {
    const auto alone = some_parameters();
    auto one = updater(name, alone, Comm());
    train(one, 0, 6);

    const auto shared = some_parameters();
    auto many = updater(name, shared, all());
    train(many, 0, 3);
    Snapshot snapshot;
    for (const auto& [of, tensor] : shared) snapshot.tensors.emplace_back(of, tensor.detach());
    snapshot.own = many.state();
    CheckpointWriter writer(folder_ / name, all());
    writer.begin(3, snapshot, /*staged=*/true);
    const auto path = writer.publish(/*best=*/false);

    const auto loaded = load_checkpoint(path, all());
    EXPECT_TRUE(loaded.own.empty());
    std::map<std::string, at::Tensor> saved;
    for (const auto& each : loaded.tensors) {
      EXPECT_TRUE(each.is_whole()) << each.name;
      saved.emplace(each.name, each.tensor);
    }
    // half of the ranks go on by themselves, the others each alone
    const auto halves = all().split(all().rank() % 2);
    for (const auto& sharing : {halves, Comm()}) {
      const auto resumed = some_parameters();
      auto updates = updater(name, resumed, sharing);
      const torch::NoGradGuard no_grad;
      for (const auto& [of, tensor] : resumed) at::Tensor(tensor).copy_(saved.at(of));
      for (const auto& kept : updates.state()) {
        const auto& whole = saved.at(kept.name);
        ASSERT_EQ(whole.sizes(), at::IntArrayRef(kept.shape)) << kept.name;
        at::Tensor(kept.tensor).copy_(kept.of_whole(whole));
      }
      train(updates, 3, 3);
      expect_same(resumed, alone, name);
    }
  }
}

TEST_F(SharedCheckpoints, WithoutOneOfTheirPartsAreRefused) {
  const auto whole = some_parameters()[0].second.detach();
  Snapshot snapshot;
  snapshot.own.push_back(Shard::of("w", whole, all().rank() * parallel::shard_grain, 1024));
  CheckpointWriter writer(folder_, all());
  writer.begin(1, snapshot, false);
  const auto path = writer.publish(false);
  try {
    load_checkpoint(path, all());
    ADD_FAILURE() << "it was loaded";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("is damaged (of 'w' "));
    EXPECT_THAT(error.what(), HasSubstr("remove it, or resume from another"));
  }
}

std::vector<Shard> shards_of_rank(const std::vector<NamedTensor>& tensors) {
  const ShardPlan plan(tensors, all().size(), ShardPlan::Cut::anywhere);
  std::vector<Shard> mine;
  for (const auto& range : plan.of_rank(all().rank())) {
    const auto& [name, tensor] = tensors[range.tensor];
    mine.push_back(Shard::of(name, tensor.detach(), range.first, range.count));
  }
  return mine;
}

TEST_F(SharedCheckpoints, AFileOfWholeTensorsIsWrittenOfPieces) {
  const auto tensors = some_parameters();
  parallel::Gathering gathering(shards_of_rank(tensors), all());
  ASSERT_EQ(gathering.tensors().size(), tensors.size());
  const auto file = folder_ / "model.safetensors";
  gathering.run([&] {
    std::vector<TensorToWrite> whole;
    for (std::size_t i = 0; i < gathering.tensors().size(); ++i) {
      const auto& [name, shape, dtype] = gathering.tensors()[i];
      whole.push_back({name, shape, dtype, [&gathering, i] { return gathering.read(i); }});
    }
    stream_safetensors(file, whole);
  });
  const auto read = open_safetensors(file);
  for (const auto& [name, tensor] : tensors)
    EXPECT_TRUE(same_bits(read->read(name), tensor)) << name;
}

TEST_F(SharedCheckpoints, WhatTheRootThrowsWhileItReadsAllRanksThrow) {
  parallel::Gathering gathering(shards_of_rank(some_parameters()), all());
  try {
    gathering.run([&] {
      gathering.read(0);
      fail("the disk is full");
    });
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("the disk is full"));
  }
  gathering.run([&] { EXPECT_EQ(gathering.read(1).numel(), 7); });
}

TEST(Gathering, WithoutSomeNumbersIsRefusedOnEveryRank) {
  auto mine = shards_of_rank(some_parameters());
  if (all().root()) std::erase_if(mine, [](const Shard& shard) { return !shard.is_whole(); });
  if (all().size() == 1) mine.push_back(Shard::of("w", torch::ones({4096}), 0, 1024));
  EXPECT_THROW(parallel::Gathering(mine, all()), Error);
}

}  // namespace
}  // namespace attune::train
