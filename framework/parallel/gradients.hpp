// Data-parallel gradient sums, reduced in buckets during the backward pass.
#pragma once
#include <ATen/core/Tensor.h>
#include <attune/comm.hpp>

#include "parallel/backend.hpp"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace attune::parallel {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Each step: reducer.begin(passes); any number of backward passes, whose gradients accumulate on
/// this rank; then
///   reducer.begin_last_backward();
///   loss.backward();      // buckets are reduced as they fill
///   reducer.finish();     // every .grad is defined, and holds the sum over ranks
///
/// A rank without work in a step calls both functions without a backward pass in between. A
/// parameter that a backward pass does not reach counts as zero and never blocks a rank. Between
/// steps, gradients may be zeroed or reset. Implemented with LibTorch's c10d::Reducer (Li et al.,
/// PyTorch Distributed, VLDB 2020). With one rank there is no reduction.
class GradientReducer {
 public:
  /// parameters: all trainable parameters in the model's order, the same on every rank (Fault
  /// otherwise). data: the data-parallel group. in_one_piece: a backward pass adds to each
  /// parameter's gradient once, so a bucket may be reduced as soon as it is full. It is not so
  /// where parts of the pass are passes of their own, as with recomputed activations: a parameter
  /// of several parts gets its gradient piece by piece. Then buckets are reduced in finish(), as
  /// they have to be where a gradient has another dtype than its parameter (wide_gradients.hpp).
  /// group: of `data`, for the parameters' device. Collective.
  GradientReducer(NamedTensors parameters, const Comm& data, ProcessGroup group,
                  bool in_one_piece = true);
  ~GradientReducer();
  GradientReducer(GradientReducer&&) noexcept;

  /// Before the backward passes of a step. Gradients of several passes add up in the buckets from
  /// which they are summed, not beside them.
  void begin(std::int64_t passes);
  void begin_last_backward();
  void finish();

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

/// Fault if the tensors have other names, shapes or dtypes on some rank. Collective.
void check_same_everywhere(const NamedTensors& tensors, const Comm& comm);

/// Copies the values from the group's rank 0 to all ranks of the data-parallel group, in place, so
/// that they hold the same model or the same shard of it. Any dtype. Names, shapes and dtypes must
/// be the same on every rank (Fault otherwise). Collective.
void broadcast_parameters(const NamedTensors& tensors, const Comm& data);

}  // namespace attune::parallel
