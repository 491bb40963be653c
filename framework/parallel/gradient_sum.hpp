// Sums the gradients of a step over its micro-batches and the data-parallel group: either as fast
// as possible, whole or in shards, or in an order that is independent of the number of ranks.
#pragma once
#include <memory>
#include <optional>

#include "parallel/gradient_tree.hpp"
#include "parallel/gradients.hpp"
#include "parallel/scattered_sum.hpp"

namespace attune::parallel {

/// Use in each step, on a rank that computes the micro-batches first .. last-1:
///
///   const auto passes = sum.begin(micro_batches, first, last);
///   sum.backward(loss);    // in each pass; beyond its own micro-batches, with an undefined loss
///   sum.finish();
///   sum.take_shards();     // where nothing is sharded, every .grad holds the sum as well
///
/// To abandon the step, call sum.abandon() on all ranks before the last backward.
class GradientSum {
 public:
  /// plan: for the ranks of sharing.shards. reproducible: use GradientTree. in_one_piece: see
  /// GradientReducer. Collective.
  GradientSum(const NamedTensors& parameters, const ShardPlan& plan, const Sharing& sharing,
              bool reproducible, bool in_one_piece);

  /// How many backward passes follow on this rank.
  std::int64_t begin(std::int64_t micro_batches, std::int64_t first, std::int64_t last);
  /// Whether passes other than a rank's last one are collective: as many on every rank.
  bool meets_in_every_pass() const { return scattered_ && scattered_->meets_in_every_pass(); }
  /// loss: a scalar that depends on the parameters. The last call of a step on each rank is
  /// collective.
  void backward(const at::Tensor& loss);
  void finish();
  void abandon();
  /// The shards that this rank updates, in the order of the plan's ranges, in memory as their
  /// parameters; zeros for parameters on which no loss depends.
  std::vector<Shard> take_shards();

 private:
  NamedTensors parameters_;
  ShardPlan plan_;
  std::optional<GradientReducer> reducer_;
  std::optional<GradientTree> tree_;
  std::optional<ScatteredSum> scattered_;
  std::vector<Shard> of_tree_;
  std::int64_t left_ = 0;  // micro-batches that this rank has yet to compute
  bool has_work_ = false;  // in the current step
};

}  // namespace attune::parallel
