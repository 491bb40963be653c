// Sums the gradients of a step over its micro-batches and the data-parallel group: either as fast
// as possible, or in an order that is independent of the number of ranks.
#pragma once
#include <memory>
#include <optional>

#include "parallel/gradient_tree.hpp"
#include "parallel/gradients.hpp"

namespace attune::parallel {

/// Use in each step:
///   sum.begin(micro_batches, first, last);        // this rank computes first .. last-1
///   sum.backward(loss);                           // for each of them
///   sum.finish();                                 // every .grad holds the sum
///
/// To abandon the step, call sum.abandon() on all ranks before the last backward.
class GradientSum {
 public:
  /// data: the data-parallel group. reproducible: use GradientTree instead of GradientReducer.
  /// group, in_one_piece: see GradientReducer. Collective.
  GradientSum(const NamedTensors& parameters, const Comm& data, ProcessGroup group,
              bool reproducible, bool in_one_piece);

  void begin(std::int64_t micro_batches, std::int64_t first, std::int64_t last);
  /// loss: a scalar that depends on the parameters. The last call of a step on each rank is
  /// collective.
  void backward(const at::Tensor& loss);
  void finish();
  void abandon();

 private:
  std::optional<GradientReducer> reducer_;
  std::optional<GradientTree> tree_;
  std::int64_t left_ = 0;  // micro-batches that this rank has yet to compute
  bool has_work_ = false;  // in the current step
};

}  // namespace attune::parallel
