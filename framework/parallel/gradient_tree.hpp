// Data-parallel gradient sums that do not depend on the number of ranks.
#pragma once
#include <ATen/core/Tensor.h>
#include <attune/comm.hpp>

#include <cstdint>
#include <map>
#include <memory>

#include "parallel/shard.hpp"
#include "parallel/sharing.hpp"

namespace attune::parallel {

/// The micro-batches of a step are the leaves of a binary tree. Gradients are added pairwise along
/// the tree, whichever rank computed a leaf, so floating-point sums have the same bits for any
/// number of ranks. Each step:
///   tree.begin(leaves, first, last);   // this rank computes leaves first .. last-1, in order;
///                                      // the ranges of consecutive ranks are adjacent
///   loss.backward(); tree.add();       // for each; add() takes .grad
///   tree.finish();                     // the shards of the sum over all leaves
///
/// A rank holds up to log2(leaves) partial sums, on the parameters' device. In finish() each rank
/// receives its part of all ranks' partial sums, and adds them along the tree. The copies of a
/// shard then exchange their parts of it. Where nothing is sharded every rank gets the whole sum
/// so: 2 (n - 1) / n of the gradients are sent when n ranks hold one partial sum each.
class GradientTree {
 public:
  /// Parameters as for GradientReducer; plan: for the ranks of sharing.shards.
  GradientTree(const NamedTensors& parameters, const ShardPlan& plan, const Sharing& sharing);
  ~GradientTree();
  GradientTree(const GradientTree&) = delete;
  GradientTree& operator=(const GradientTree&) = delete;

  void begin(std::int64_t leaves, std::int64_t first, std::int64_t last);
  void add();
  /// This rank's shards, in the order of the plan's ranges, in memory as their parameters.
  /// Collective.
  std::vector<Shard> finish();
  /// Abandons the step and discards the partial sums.
  void abandon() { sums_.clear(); }

  /// How many partial sums a rank of so many leaves holds at most beside a backward pass, or in
  /// place of one. Of several ranks a rank's leaves may begin in the middle of a subtree.
  static std::int64_t most_sums(std::int64_t leaves_of_rank, int ranks);

 private:
  struct Node {
    int level;           // 0: leaves
    std::int64_t index;  // on its level; the parent is index / 2 one level up
    auto operator<=>(const Node&) const = default;
  };
  void settle(Node node, at::Tensor sum);
  /// The partial sums of all ranks, by rank.
  std::vector<std::vector<Node>> nodes_of_ranks() const;
  /// This rank's partial sums, for each rank its parts of them.
  at::Tensor take_parts_to_send();
  void exchange();
  std::int64_t own_part() const;
  at::Tensor take_gradients();
  std::vector<Shard> shards_of(const at::Tensor& sum) const;

  NamedTensors parameters_;
  ShardPlan plan_;
  Sharing sharing_;
  at::ScalarType dtype_;  // of the sums: one that holds all gradients
  // by rank of `data`: how many elements it adds up, each part as aligned as a tensor
  std::vector<std::int64_t> parts_;
  std::int64_t leaves_ = 0;
  std::int64_t next_ = 0;
  std::int64_t last_ = 0;
  // partial sums held by this rank: for each rank of `data` its part
  std::map<Node, at::Tensor> sums_;
};

}  // namespace attune::parallel
