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
/// A rank holds up to log2(leaves) partial sums.
class GradientTree {
 public:
  /// Parameters as for GradientReducer.
  GradientTree(NamedTensors parameters, Comm data);

  void begin(std::int64_t leaves, std::int64_t first, std::int64_t last);
  void add();
  /// Collective.
  void finish();
  /// Abandons the step and discards the partial sums.
  void abandon() { sums_.clear(); }

 private:
  struct Node {
    int level;           // 0: leaves
    std::int64_t index;  // on its level; the parent is index / 2 one level up
    auto operator<=>(const Node&) const = default;
  };
  void settle(Node node, at::Tensor sum);
  at::Tensor take_gradients();
  void give_gradients(const at::Tensor& sum);

  std::vector<at::Tensor> parameters_;
  Comm data_;
  std::int64_t leaves_ = 0;
  std::int64_t next_ = 0;
  std::int64_t last_ = 0;
  std::map<Node, at::Tensor> sums_;  // partial sums held by this rank
};

}  // namespace attune::parallel
