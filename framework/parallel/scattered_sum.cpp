#include "parallel/scattered_sum.hpp"

#include <ATen/ATen.h>
#include <attune/error.hpp>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <algorithm>

#include "parallel/mpi.hpp"
#include "parallel/wide_gradients.hpp"

namespace attune::parallel {
namespace {

/// Of a bucket in one row. The parameters are left without them.
at::Tensor take(const NamedTensors& parameters, const std::vector<std::size_t>& bucket) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  for (const auto i : bucket) {
    at::Tensor parameter = parameters[i].second;
    gradients.push_back(parameter.grad().defined() ? parameter.grad() : zero_gradient(parameter));
    parameter.mutable_grad() = at::Tensor();
  }
  return in_one_row(gradients);
}

at::Tensor empty_sum(const NamedTensors& parameters, const ShardPlan& plan, int rank,
                     std::size_t bucket) {
  const auto& some = parameters[plan.buckets()[bucket].front()].second;
  return at::empty({plan.sizes(bucket)[static_cast<std::size_t>(rank)]},
                   some.options().dtype(gradient_dtype(some)).requires_grad(false));
}

}  // namespace

ScatteredSum::ScatteredSum(const NamedTensors& parameters, const ShardPlan& plan,
                           const Sharing& sharing, bool in_one_piece)
    : parameters_(parameters),
      plan_(plan),
      sharing_(sharing),
      in_one_piece_(in_one_piece),
      sums_(plan.buckets().size()),
      ready_(parameters, plan.buckets(), [this](std::size_t bucket) { scatter(bucket); }) {
  check_same_everywhere(parameters, sharing.data.comm);
}

std::int64_t ScatteredSum::begin(std::int64_t own) {
  std::ranges::fill(sums_, at::Tensor());
  has_scattered_ = false;
  left_ = meets_in_every_pass() ? sharing_.data.comm.max(own) : own;
  return left_;
}

void ScatteredSum::backward(const at::Tensor& loss) {
  const bool scatters = --left_ <= 0 || meets_in_every_pass();
  if (scatters) ready_.begin();
  if (loss.defined()) loss.backward();
  if (!scatters) return;
  ready_.end();
  if (!in_one_piece_) scatter_late();
  ATTUNE_ASSERT(!in_one_piece_ || ready_.late().empty(), "a gradient came in several pieces");
  has_scattered_ = true;
}

/// Starts the reduction; the pass goes on.
void ScatteredSum::scatter(std::size_t bucket) {
  const at::NoGradGuard no_grad;
  while (under_way_.size() >= most_under_way) settle_one();
  const auto row = take(parameters_, plan_.buckets()[bucket]);
  std::vector<std::vector<at::Tensor>> for_ranks{row.split_with_sizes(plan_.sizes(bucket))};
  std::vector<at::Tensor> mine{empty_sum(parameters_, plan_, sharing_.shards.comm.rank(), bucket)};
  auto work = sharing_.shards.collectives->reduce_scatter(mine, for_ranks);
  under_way_.push_back({std::move(work), bucket, mine.front()});
}

/// Which buckets have further gradients, a rank knows of its own passes alone.
void ScatteredSum::scatter_late() {
  std::vector<double> ranks(sums_.size(), 0);
  for (const auto bucket : ready_.late()) ranks[bucket] = 1;
  sum_in_place(ranks, sharing_.shards.comm);
  for (std::size_t bucket = 0; bucket < ranks.size(); ++bucket)
    if (ranks[bucket] > 0) scatter(bucket);
}

void ScatteredSum::settle_one() {
  const auto& [work, bucket, sum] = under_way_.front();
  work->wait();
  if (sums_[bucket].defined())
    sums_[bucket].add_(sum);
  else
    sums_[bucket] = sum;
  under_way_.pop_front();
}

void ScatteredSum::settle_all() {
  const at::NoGradGuard no_grad;
  while (!under_way_.empty()) settle_one();
}

void ScatteredSum::finish() {
  if (!has_scattered_) backward({});
  settle_all();
  if (sharing_.copies.comm.size() == 1) return;
  std::vector<Pending> works;
  for (auto& sum : sums_) {
    std::vector<at::Tensor> tensors{sum};
    works.push_back(sharing_.copies.collectives->allreduce(tensors));
  }
  for (const auto& work : works) work->wait();
}

void ScatteredSum::abandon() {
  settle_all();
  std::ranges::fill(sums_, at::Tensor());
}

std::vector<Shard> ScatteredSum::take_shards() {
  auto shards = shards_of(parameters_, plan_, sharing_.shards.comm.rank(), sums_);
  std::ranges::fill(sums_, at::Tensor());
  return shards;
}

ScatterRehearsal::ScatterRehearsal(const NamedTensors& parameters, const ShardPlan& plan,
                                   bool holds_sums)
    : sums_(plan.buckets().size()),
      ready_(parameters, plan.buckets(), [=, this](std::size_t bucket) {
        if (under_way_.size() == most_under_way) under_way_.pop_front();
        under_way_.push_back(take(parameters, plan.buckets()[bucket]));
        if (!holds_sums)
          sums_[bucket] = empty_sum(parameters, plan, plan.fullest(), bucket).zero_();
      }) {
  if (holds_sums)
    for (std::size_t bucket = 0; bucket < sums_.size(); ++bucket)
      sums_[bucket] = empty_sum(parameters, plan, plan.fullest(), bucket).zero_();
  ready_.begin();
}

}  // namespace attune::parallel
