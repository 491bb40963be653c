// Data parallelism whose sums do not depend on the number of ranks.
#pragma once
#include <ATen/core/Tensor.h>
#include <attune/comm.hpp>

#include <cstdint>
#include <map>
#include <memory>

#include "parallel/gradients.hpp"

namespace attune::parallel {

/// The micro-batches of a step are the leaves of one binary tree; gradients are added along it,
/// pair by pair, whichever rank computed a leaf. Floating-point sums then have the same bits on any
/// number of ranks. Each step:
///   tree.begin(leaves, first, last);   // this rank computes leaves first .. last-1, in order;
///                                      // the ranks' shares follow each other
///   loss.backward(); tree.add();       // for each; .grad is taken away
///   tree.finish();                     // every .grad holds the sum over all leaves
/// A rank holds up to log2(leaves) partial sums.
class GradientTree {
 public:
  /// As for GradientReducer.
  GradientTree(NamedTensors parameters, Comm data);

  void begin(std::int64_t leaves, std::int64_t first, std::int64_t last);
  void add();
  /// Collective.
  void finish();
  /// The step is left; what was added is forgotten.
  void abandon() { sums_.clear(); }

 private:
  struct Node {
    int level;           // 0: leaves
    std::int64_t index;  // on its level; its parent is index / 2 a level up
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
  std::map<Node, at::Tensor> sums_;  // partial sums this rank holds
};

}  // namespace attune::parallel
