// The gradients of a step, summed over its micro-batches and the data-parallel group: as fast as
// can be, or in an order that no number of ranks changes.
#pragma once
#include <memory>
#include <optional>

#include "parallel/gradient_tree.hpp"
#include "parallel/gradients.hpp"

namespace attune::parallel {

/// Each step:
///   sum.begin(micro_batches, first, last);        // this rank computes first .. last-1 of all
///   sum.backward(loss);                           // for each of them
///   sum.finish();                                 // every .grad holds the sum
/// or, before the last backward, sum.abandon() on all ranks: the step is left.
class GradientSum {
 public:
  /// data: the data-parallel group. reproducible: by GradientTree, otherwise by GradientReducer.
  /// Collective.
  GradientSum(const NamedTensors& parameters, const Comm& data, bool reproducible);

  void begin(std::int64_t micro_batches, std::int64_t first, std::int64_t last);
  /// loss: a scalar that depends on the parameters. The last one of a rank is collective.
  void backward(const at::Tensor& loss);
  void finish();
  void abandon();

 private:
  std::optional<GradientReducer> reducer_;
  std::optional<GradientTree> tree_;
  std::int64_t left_ = 0;  // micro-batches this rank still computes
  bool has_work_ = false;  // in this step
};

}  // namespace attune::parallel
