#include "parallel/ready_buckets.hpp"

#include <attune/error.hpp>

#include <torch/csrc/autograd/utils/lambda_post_hook.h>

#include <algorithm>

namespace attune::parallel {

ReadyBuckets::ReadyBuckets(const NamedTensors& parameters, const Buckets& buckets, Work work)
    : missing_(buckets.size()), work_(std::move(work)) {
  for (std::size_t bucket = 0; bucket < buckets.size(); ++bucket)
    for (const auto i : buckets[bucket]) watched_.push_back({parameters[i].second, bucket});
  for (auto& one : watched_) watch(one);  // now that they stay where they are
}

ReadyBuckets::~ReadyBuckets() {
  for (const auto& one : watched_) one.accumulator->del_post_hook(one.hook);
}

void ReadyBuckets::watch(Watched& one) {
  ATTUNE_ASSERT(one.parameter.requires_grad(), "a parameter that is not trained");
  using torch::autograd::variable_list;
  const auto arrived = [this, &one](const variable_list& outputs, const variable_list&) {
    arrive(one);
    return outputs;
  };
  one.accumulator = torch::autograd::impl::grad_accumulator(one.parameter);
  one.hook = one.accumulator->add_post_hook(
      std::make_unique<torch::autograd::utils::LambdaPostHook>(arrived));
}

/// A parameter that a strategy has frozen for now is not waited for.
void ReadyBuckets::begin() {
  std::ranges::fill(missing_, 0);
  for (auto& one : watched_) {
    one.has_arrived = !one.parameter.requires_grad();
    if (!one.has_arrived) ++missing_[one.bucket];
  }
  late_.clear();
  left_ = missing_.size();
  is_active_ = true;
}

void ReadyBuckets::end() {
  is_active_ = false;
  while (left_ > 0) work_(--left_);
}

void ReadyBuckets::arrive(Watched& one) {
  if (!is_active_) return;
  if (one.bucket >= left_) {
    if (std::ranges::find(late_, one.bucket) == late_.end()) late_.push_back(one.bucket);
    return;
  }
  if (!std::exchange(one.has_arrived, true)) --missing_[one.bucket];
  tell_ready();
}

void ReadyBuckets::tell_ready() {
  while (left_ > 0 && missing_[left_ - 1] == 0) work_(--left_);
}

}  // namespace attune::parallel
