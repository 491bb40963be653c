// Data-parallel gradient sums of which every rank keeps its shards.
#pragma once
#include <cstdint>
#include <deque>
#include <vector>

#include "parallel/ready_buckets.hpp"
#include "parallel/runner.hpp"
#include "parallel/sharing.hpp"

namespace attune::parallel {

/// Each step:
///   const auto passes = sum.begin(own);      // this rank has `own` backward passes
///   for each of `passes`:
///     sum.backward(loss);                    // an undefined loss beyond its own
///   sum.finish();
///   sum.take_shards();
///
/// A bucket of gradients is reduced and scattered as soon as a pass has computed it, and its
/// gradients are given up. From Sharded::gradients on every pass does so, and all ranks make
/// equally many passes; whole gradients are there only of the bucket that is being computed and of
/// two that are being sent. With Sharded::optimizer gradients add up on each rank, and only its
/// last pass scatters them, which sends less when a step has several.
class ScatteredSum {
 public:
  /// plan: for the ranks of sharing.shards. in_one_piece: see GradientReducer. Collective.
  ScatteredSum(const NamedTensors& parameters, const ShardPlan& plan, const Sharing& sharing,
               bool in_one_piece);

  std::int64_t begin(std::int64_t own);
  /// Whether passes other than a rank's last one are collective.
  bool meets_in_every_pass() const { return sharing_.what >= Sharded::gradients; }
  void backward(const at::Tensor& loss);
  void finish();
  /// Gives up the sums of the passes so far. Between passes, on all ranks.
  void abandon();
  /// Of the summed gradients, as the optimizer sees them: in memory as their parameters. In the
  /// order of the plan's ranges.
  std::vector<Shard> take_shards();

 private:
  struct UnderWay {
    Pending work;
    std::size_t bucket;
    at::Tensor sum;  // of this pass
  };
  void scatter(std::size_t bucket);
  void scatter_late();
  void settle_one();
  void settle_all();

  NamedTensors parameters_;
  ShardPlan plan_;
  Sharing sharing_;
  bool in_one_piece_;
  std::int64_t left_ = 0;  // passes of the step
  bool has_scattered_ = false;
  std::deque<UnderWay> under_way_;
  std::vector<at::Tensor> sums_;  // by bucket: of this rank's elements; undefined at first
  ReadyBuckets ready_;
};

/// Stands in for a ScatteredSum in one pass of a single process: gradients are given up as they
/// would be, and as much memory is held as on the rank with the most. Made before the forward pass.
class ScatterRehearsal {
 public:
  /// holds_sums: those of earlier passes are there.
  ScatterRehearsal(const NamedTensors& parameters, const ShardPlan& plan, bool holds_sums);

 private:
  std::vector<at::Tensor> sums_;
  std::deque<at::Tensor> under_way_;
  ReadyBuckets ready_;
};

}  // namespace attune::parallel
