// Data-parallel gradient sums that do not depend on the number of ranks.
#pragma once
#include <ATen/core/Tensor.h>
#include <attune/comm.hpp>

#include <cstdint>
#include <map>
#include <memory>

#include "parallel/gradients.hpp"

namespace attune::parallel {

/// The micro-batches of a step are the leaves of a binary tree. Gradients are added pairwise along
/// the tree, whichever rank computed a leaf, so floating-point sums have the same bits for any
/// number of ranks. Each step:
///   tree.begin(leaves, first, last);   // this rank computes leaves first .. last-1, in order;
///                                      // the ranges of consecutive ranks are adjacent
///   loss.backward(); tree.add();       // for each; add() takes .grad
///   tree.finish();                     // every .grad holds the sum over all leaves
///
/// A rank holds up to log2(leaves) partial sums, on the parameters' device. In finish() each rank
/// receives its shard of all ranks' partial sums, adds them along the tree, and gets the other
/// shards of the result: 2 (n - 1) / n of the gradients are sent when n ranks hold one partial sum
/// each.
class GradientTree {
 public:
  /// Parameters and group as for GradientReducer.
  GradientTree(const NamedTensors& parameters, Comm data, ProcessGroup group);
  ~GradientTree();
  GradientTree(const GradientTree&) = delete;
  GradientTree& operator=(const GradientTree&) = delete;

  void begin(std::int64_t leaves, std::int64_t first, std::int64_t last);
  void add();
  /// Collective.
  void finish();
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
  /// This rank's partial sums, for each rank its shards of them.
  at::Tensor take_shards_to_send();
  void exchange();
  at::Tensor take_gradients();
  void give_gradients(const at::Tensor& sum);

  std::vector<at::Tensor> parameters_;
  Comm data_;
  ProcessGroup group_;
  at::ScalarType dtype_;  // of the sums: one that holds all gradients
  std::int64_t elements_ = 0;
  // elements_, rounded up so that all ranks have shards of one size, each as aligned as a tensor
  std::int64_t padded_ = 0;
  std::int64_t leaves_ = 0;
  std::int64_t next_ = 0;
  std::int64_t last_ = 0;
  std::map<Node, at::Tensor> sums_;  // partial sums held by this rank
};

}  // namespace attune::parallel
