// Data parallelism: the sum of every rank's gradients, reduced in buckets while the backward pass
// still runs.
#pragma once
#include <ATen/core/Tensor.h>
#include <attune/comm.hpp>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace attune::parallel {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Each step: any number of backward passes, whose gradients add up on this rank; then
///   reducer.begin_last_backward();
///   loss.backward();      // buckets are reduced as they fill
///   reducer.finish();     // every .grad is defined, and holds the sum over ranks
/// A rank with nothing to do in a step calls the two without a backward pass between. A parameter
/// that a pass does not reach counts as zero, whichever ranks it happens on, and never makes a rank
/// wait. Between steps the gradients may be zeroed or reset. Method: Li et al., PyTorch Distributed
/// (VLDB 2020), with LibTorch's own c10d::Reducer; on one rank there is nothing to reduce.
class GradientReducer {
 public:
  /// parameters: all that are trained, in the model's order, the same on every rank (Fault
  /// otherwise). data: the data-parallel group. Collective.
  GradientReducer(NamedTensors parameters, const Comm& data);
  ~GradientReducer();
  GradientReducer(GradientReducer&&) noexcept;

  void begin_last_backward();
  void finish();

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

/// The values of the group's rank 0, in place, on every rank of the data-parallel group: its ranks
/// hold the same model, or the same shard of it. Any dtype; names, shapes and dtypes are the same
/// on every rank (Fault otherwise). Collective.
void broadcast_parameters(const NamedTensors& tensors, const Comm& data);

}  // namespace attune::parallel
