// Sums of gradients of which every rank keeps its shards are those of one process that computes
// everything.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <attune/error.hpp>
#include <cstring>

#include "errors.hpp"
#include "parallel/gradient_sum.hpp"
#include "parallel/mpi.hpp"
#include "parallel/ready_buckets.hpp"
#include "parallel/traffic.hpp"
#include "parallel/wide_gradients.hpp"

namespace attune::parallel {
namespace {

const Comm& all() {
  static const Comm comm = attune::world();
  return comm;
}

/// Parameters of several sizes: one that is not contiguous, one without a dimension, one that no
/// loss depends on, and one in bfloat16 with gradients in float32.
struct Toy {
  Toy() {
    torch::manual_seed(3);
    parameters = {{"large", torch::randn({70, 50}).requires_grad_()},
                  {"bias", torch::randn({50}).requires_grad_()},
                  {"turned", torch::randn({50, 60}).t().requires_grad_()},
                  {"scale", torch::randn({}).requires_grad_()},
                  {"unused", torch::randn({3, 3}).requires_grad_()},
                  {"rounded", torch::randn({50, 40}).to(at::kBFloat16).requires_grad_()}};
    widen_gradient(parameters.back().second);
  }

  at::Tensor at(std::size_t i) const { return parameters[i].second; }

  at::Tensor loss(const at::Tensor& x) const {
    const auto hidden = torch::tanh(x.matmul(at(0)) + at(1));
    const auto wide = hidden.matmul(at(2).t()).pow(2).mean() * at(3);
    return wide + hidden.to(at::kBFloat16).matmul(at(5)).to(at::kFloat).sum();
  }

  NamedTensors parameters;
};

at::Tensor micro_batch(std::int64_t index) {
  torch::manual_seed(1000 + index);
  return torch::randn({4, 70});
}

/// Of one process.
std::vector<at::Tensor> expected_sums(std::int64_t micro_batches) {
  const Toy alone;
  for (std::int64_t i = 0; i < micro_batches; ++i) alone.loss(micro_batch(i)).backward();
  std::vector<at::Tensor> sums;
  for (const auto& [name, parameter] : alone.parameters)
    sums.push_back(parameter.grad().defined() ? parameter.grad() : zero_gradient(parameter));
  return sums;
}

Sharing sharing_of(Sharded what, int copies) {
  return Sharing::make(all(), what, copies, /*reproducible=*/true, c10::kCPU, Transport::automatic);
}

/// Every tensor a bucket of its own, or as few as there may be.
ShardPlan plan_of(const NamedTensors& parameters, int ranks, bool many,
                  ShardPlan::Cut cut = ShardPlan::Cut::anywhere) {
  Buckets buckets;
  for (std::size_t i = 0; i < parameters.size(); ++i) buckets.push_back({i});
  return {parameters, ranks, cut, many ? buckets : buckets_of(parameters)};
}

std::vector<std::int64_t> even(std::int64_t micro_batches) {
  std::vector<std::int64_t> bounds;
  for (int rank = 0; rank <= all().size(); ++rank)
    bounds.push_back(micro_batches * rank / all().size());
  return bounds;
}

std::vector<std::int64_t> all_on_first(std::int64_t micro_batches) {
  std::vector<std::int64_t> bounds(static_cast<std::size_t>(all().size()) + 1, micro_batches);
  bounds.front() = 0;
  return bounds;
}

using LossOf = std::function<at::Tensor(const Toy&, std::int64_t micro_batch)>;

at::Tensor plain_loss(const Toy& toy, std::int64_t i) { return toy.loss(micro_batch(i)); }

/// One step over the micro-batches, which rank r computes from bounds[r] to bounds[r+1].
std::vector<Shard> one_step(GradientSum& sum, const Toy& toy,
                            const std::vector<std::int64_t>& bounds, const LossOf& loss) {
  const auto rank = static_cast<std::size_t>(all().rank());
  const auto first = bounds[rank];
  const auto last = bounds[rank + 1];
  const auto passes = sum.begin(bounds.back(), first, last);
  for (std::int64_t pass = 0; pass < passes; ++pass)
    sum.backward(first + pass < last ? loss(toy, first + pass) : at::Tensor());
  sum.finish();
  for (const auto& [name, parameter] : toy.parameters)
    EXPECT_FALSE(parameter.grad().defined()) << name << ": whole gradients are given up";
  return sum.take_shards();
}

/// Whole tensors in the order of the parameters, from the shards of all ranks of a copy.
std::vector<at::Tensor> together(const Toy& toy, const ShardPlan& plan, const RankGroup& group,
                                 const std::vector<Shard>& shards) {
  NamedTensors whole;
  for (const auto& [name, parameter] : toy.parameters)
    whole.emplace_back(name, zero_gradient(parameter));
  const auto& ranges = plan.of_rank(group.comm.rank());
  EXPECT_EQ(shards.size(), ranges.size());
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const auto& parameter = toy.at(ranges[i].tensor);
    EXPECT_EQ(shards[i].name, toy.parameters[ranges[i].tensor].first);
    EXPECT_EQ(shards[i].offset, ranges[i].first);
    if (shards[i].is_whole()) {
      EXPECT_EQ(shards[i].tensor.strides(), parameter.strides()) << "in memory as its parameter";
    }
    const at::NoGradGuard no_grad;
    shards[i].of_whole(whole[ranges[i].tensor].second).copy_(shards[i].tensor);
  }
  gather_shards(whole, plan, group);
  std::vector<at::Tensor> tensors;
  for (const auto& [name, tensor] : whole) tensors.push_back(tensor);
  return tensors;
}

void expect_close(const std::vector<at::Tensor>& ours, const std::vector<at::Tensor>& theirs,
                  const std::string& what) {
  for (std::size_t i = 0; i < theirs.size(); ++i) {
    EXPECT_EQ(ours[i].scalar_type(), theirs[i].scalar_type());
    EXPECT_TRUE(ours[i].allclose(theirs[i], 1e-5, 1e-5)) << what << ": parameter " << i;
  }
}

/// Copies into which the ranks can be divided.
std::vector<int> possible_copies() {
  std::vector<int> copies;
  for (int n = 1; n <= all().size(); ++n)
    if (all().size() % n == 0) copies.push_back(n);
  return copies;
}

TEST(ScatteredSums, AreThoseOfOneProcess) {
  for (const auto what : {Sharded::optimizer, Sharded::gradients})
    for (const int copies : possible_copies()) {
      const auto sharing = sharing_of(what, copies);
      if (!sharing.is_sharded()) continue;  // that is plain data parallelism
      EXPECT_EQ(sharing.shards.comm.size() * copies, all().size());
      for (const bool many : {false, true}) {
        const Toy toy;
        const auto plan = plan_of(toy.parameters, sharing.shards.comm.size(), many);
        GradientSum sum(toy.parameters, plan, sharing, /*reproducible=*/false, true);
        for (const std::int64_t micro_batches : {1, 2, 5, 8})
          for (const auto& bounds : {even(micro_batches), all_on_first(micro_batches)}) {
            const auto shards = one_step(sum, toy, bounds, plain_loss);
            expect_close(together(toy, plan, sharing.shards, shards), expected_sums(micro_batches),
                         fmt::format("{} copies, {} micro-batches", copies, micro_batches));
          }
      }
    }
}

TEST(ScatteredSums, OfWholeTensorsAreSharedOutBetweenThem) {
  const auto sharing = sharing_of(Sharded::gradients, 1);
  if (!sharing.is_sharded()) return;
  const Toy toy;
  const auto plan = plan_of(toy.parameters, all().size(), false, ShardPlan::Cut::between_tensors);
  GradientSum sum(toy.parameters, plan, sharing, false, true);
  const auto shards = one_step(sum, toy, even(6), plain_loss);
  for (const auto& shard : shards) EXPECT_TRUE(shard.is_whole()) << shard.name;
  expect_close(together(toy, plan, sharing.shards, shards), expected_sums(6), "whole tensors");
}

TEST(ScatteredSums, AddedAlongTheTreeHaveTheBitsOfOneProcess) {
  for (const std::int64_t micro_batches : {1, 3, 7, 8}) {
    std::vector<at::Tensor> expected;
    {
      const Toy alone;
      GradientSum sum(alone.parameters, ShardPlan::whole(alone.parameters), Sharing::nothing({}),
                      /*reproducible=*/true, true);
      sum.begin(micro_batches, 0, micro_batches);
      for (std::int64_t i = 0; i < micro_batches; ++i) sum.backward(plain_loss(alone, i));
      sum.finish();
      for (const auto& [name, parameter] : alone.parameters) expected.push_back(parameter.grad());
    }
    for (const int copies : possible_copies())
      for (const auto cut : {ShardPlan::Cut::anywhere, ShardPlan::Cut::between_tensors}) {
        const auto sharing = sharing_of(Sharded::optimizer, copies);
        if (!sharing.is_sharded()) continue;
        const auto bounds = copies == 1 ? even(micro_batches) : all_on_first(micro_batches);
        const Toy toy;
        const auto plan = plan_of(toy.parameters, sharing.shards.comm.size(), false, cut);
        GradientSum sum(toy.parameters, plan, sharing, /*reproducible=*/true, true);
        const auto shards = one_step(sum, toy, bounds, plain_loss);
        const auto ours = together(toy, plan, sharing.shards, shards);
        for (std::size_t i = 0; i < ours.size(); ++i)
          EXPECT_TRUE(ours[i].equal(expected[i]))
              << toy.parameters[i].first << ", " << copies << " copies, " << micro_batches;
      }
  }
}

/// A strategy may freeze parameters for some steps; nobody waits for their gradients.
TEST(ScatteredSums, OfFrozenParametersAreZero) {
  const auto sharing = sharing_of(Sharded::gradients, 1);
  if (!sharing.is_sharded()) return;
  const Toy toy;
  const auto plan = plan_of(toy.parameters, all().size(), true);
  GradientSum sum(toy.parameters, plan, sharing, false, true);
  toy.at(0).set_requires_grad(false);
  auto expected = expected_sums(4);
  expected[0].zero_();
  const auto shards = one_step(sum, toy, even(4), plain_loss);
  expect_close(together(toy, plan, sharing.shards, shards), expected, "frozen");
  toy.at(0).set_requires_grad(true);
  expect_close(together(toy, plan, sharing.shards, one_step(sum, toy, even(4), plain_loss)),
               expected_sums(4), "and trained again");
}

/// The loss of a toy, computed anew inside the backward pass, as with activation checkpointing.
struct Recomputed : torch::autograd::Function<Recomputed> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const Toy* toy) {
    context->save_for_backward({x});
    context->saved_data["toy"] = reinterpret_cast<std::int64_t>(toy);
    const at::NoGradGuard no_grad;
    return toy->loss(x);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto* toy = reinterpret_cast<const Toy*>(context->saved_data["toy"].toInt());
    const at::AutoGradMode with_grad(true);
    const auto x = context->get_saved_variables()[0].detach().requires_grad_(true);
    toy->loss(x).backward(gradients[0]);
    return {x.grad(), at::Tensor()};
  }
};

/// Every parameter's gradient comes in two pieces, the second after its bucket was sent. On the
/// last rank it comes in one.
TEST(ScatteredSums, TakeGradientsThatComePieceByPiece) {
  for (const auto what : {Sharded::optimizer, Sharded::gradients}) {
    const auto sharing = sharing_of(what, 1);
    if (!sharing.is_sharded()) return;
    const Toy toy;
    const auto plan = plan_of(toy.parameters, all().size(), true);
    GradientSum sum(toy.parameters, plan, sharing, false, /*in_one_piece=*/false);
    const auto in_pieces = [](const Toy& of, std::int64_t i) {
      if (all().rank() == all().size() - 1) return of.loss(micro_batch(i));
      const auto half = [&] {
        return Recomputed::apply(micro_batch(i).requires_grad_(true), &of) * 0.5;
      };
      return half() + half();
    };
    const auto shards = one_step(sum, toy, even(5), in_pieces);
    expect_close(together(toy, plan, sharing.shards, shards), expected_sums(5), "in pieces");
  }
}

TEST(ScatteredSums, OfAnAbandonedStepAreGivenUp) {
  const auto sharing = sharing_of(Sharded::gradients, 1);
  if (!sharing.is_sharded()) return;
  const Toy toy;
  const auto plan = plan_of(toy.parameters, all().size(), true);
  GradientSum sum(toy.parameters, plan, sharing, false, true);
  sum.begin(3 * all().size(), 3 * all().rank(), 3 * all().rank() + 3);
  sum.backward(plain_loss(toy, 0));
  sum.abandon();
  const auto shards = one_step(sum, toy, even(4), plain_loss);
  expect_close(together(toy, plan, sharing.shards, shards), expected_sums(4), "the next step");
}

/// Each pass with Sharded::gradients, the last one with Sharded::optimizer.
TEST(ScatteredSums, SendEveryGradientOncePerScatteringPass) {
  std::int64_t bytes_of_gradients = 0;
  for (const auto& [name, parameter] : Toy().parameters)
    bytes_of_gradients += static_cast<std::int64_t>(gradient_bytes(parameter));
  for (const auto what : {Sharded::optimizer, Sharded::gradients}) {
    const auto sharing = sharing_of(what, 1);
    if (!sharing.is_sharded()) return;
    const Toy toy;
    const auto plan = plan_of(toy.parameters, all().size(), false);
    GradientSum sum(toy.parameters, plan, sharing, false, true);
    auto before = traffic_of_rank(all());
    one_step(sum, toy, even(3 * all().size()), plain_loss);
    auto after = traffic_of_rank(all());
    const int passes = what == Sharded::gradients ? 3 : 1;
    EXPECT_EQ(after["reduce_scatter"].bytes - before["reduce_scatter"].bytes,
              passes * bytes_of_gradients);
    EXPECT_EQ(after["all_reduce"].bytes - before["all_reduce"].bytes,
              what == Sharded::gradients ? 8 : 0)
        << "how many passes there are";
  }
}

TEST(ScatteredSums, RefuseParametersThatDifferBetweenRanks) {
  const auto sharing = sharing_of(Sharded::gradients, 1);
  if (!sharing.is_sharded()) return;
  const auto mine = torch::ones({3 + all().rank()}).requires_grad_();
  const NamedTensors parameters{{"w", mine}};
  EXPECT_THROW(GradientSum(parameters, plan_of(parameters, all().size(), false), sharing, false,
                           /*in_one_piece=*/true),
               Fault);
}

TEST(ReadyBuckets, AreToldLastToFirstAndOnce) {
  const Toy toy;
  const Buckets buckets{{0, 1}, {2, 3}, {4}, {5}};
  std::vector<std::size_t> told;
  std::vector<std::size_t> complete;  // of those, with all gradients that there will be
  ReadyBuckets ready(toy.parameters, buckets, [&](std::size_t bucket) {
    told.push_back(bucket);
    const auto has_gradient = [&](std::size_t i) { return toy.at(i).grad().defined(); };
    if (std::ranges::all_of(buckets[bucket], has_gradient)) complete.push_back(bucket);
  });
  toy.loss(micro_batch(0)).backward();
  EXPECT_TRUE(told.empty()) << "not outside of begin() and end()";
  for (const auto& [name, parameter] : toy.parameters)
    at::Tensor(parameter).mutable_grad() = at::Tensor();

  ready.begin();
  toy.loss(micro_batch(0)).backward();
  EXPECT_THAT(told, testing::ElementsAre(3)) << "a parameter that is not reached stops the others";
  ready.end();
  EXPECT_THAT(told, testing::ElementsAre(3, 2, 1, 0));
  EXPECT_THAT(complete, testing::ElementsAre(3, 1, 0));
  EXPECT_TRUE(ready.late().empty());

  ready.begin();
  toy.loss(micro_batch(0)).backward();
  toy.loss(micro_batch(0)).backward();
  ready.end();
  EXPECT_THAT(ready.late(), testing::ElementsAre(3)) << "it got a further piece";
}

}  // namespace
}  // namespace attune::parallel
