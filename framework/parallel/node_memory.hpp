// Tensors that the ranks of a node hold once. Decision record:
// docs/design/0036-one-base-per-node.md.
#pragma once
#include <ATen/core/Tensor.h>
#include <attune/comm.hpp>

#include <memory>
#include <string>
#include <vector>

namespace attune::parallel {

/// Places tensors in memory that the ranks of a node share. On each rank the tensor is an ordinary
/// one in host memory. A rank that writes to it gets its own copy of the pages it writes to
/// (copy-on-write); the others do not see that. The memory has no name in any file system, so
/// nothing is left behind by a rank that is killed, and it is freed with the last rank's tensor.
class NodeMemory {
 public:
  /// node: ranks of one node.
  explicit NodeMemory(Comm node) : node_(std::move(node)) {}

  /// The values of the node's first rank, as contiguous tensor of this dtype on every rank. values:
  /// on the first rank, in any dtype and layout; ignored on others. Small tensors are copied, and
  /// all are where memory cannot be shared. Collective.
  at::Tensor place(const at::Tensor& values, at::ScalarType dtype);

  /// The same for tensors that change: every rank may write to them, and the others see that. They
  /// keep their dtypes and strides. values: the same on every rank; each copies a part of them.
  /// Empty where memory cannot be shared. Collective.
  std::vector<at::Tensor> place_open(const std::vector<at::Tensor>& values);

  /// Why memory cannot be shared, after a tensor could not be placed; otherwise empty. The same on
  /// every rank.
  const std::string& obstacle() const { return obstacle_; }

  const Comm& node() const { return node_; }

  /// Whether a tensor of this size is shared rather than copied.
  static bool is_worth_sharing(std::size_t bytes);
  /// Whether place() or place_open() put this tensor, or the one that it is a view of, into shared
  /// memory.
  static bool holds(const at::Tensor& tensor);

 private:
  at::Tensor copied(const at::Tensor& values, at::ScalarType dtype) const;
  at::Tensor shared(const at::Tensor& values, at::ScalarType dtype,
                    const std::vector<std::int64_t>& sizes);

  Comm node_;
  std::string obstacle_;
};

}  // namespace attune::parallel
