// The numbers of a tensor that one rank holds, of those that a group of ranks holds together. What
// an optimizer updates, what a checkpoint saves, and gradients are handed on as shards; a whole
// tensor is the case of one shard. Decision record: docs/design/0028-shards.md.
#pragma once
#include <attune/comm.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/gradients.hpp"

namespace attune::parallel {

struct Shard {
  std::string name;                 // of the whole tensor
  std::vector<std::int64_t> shape;  // of the whole tensor
  std::int64_t offset = 0;          // of the first number that is held, in row-major order
  at::Tensor tensor;                // the whole, in its shape; of a piece, [n]

  Shard() = default;
  Shard(std::string tensor_name, const at::Tensor& whole)
      : name(std::move(tensor_name)), shape(whole.sizes().vec()), tensor(whole) {}
  /// Numbers first .. first + count - 1 of a contiguous tensor, in its memory; of any tensor where
  /// these are all.
  static Shard of(const std::string& name, const at::Tensor& whole, std::int64_t first,
                  std::int64_t count);

  bool is_whole() const { return tensor.sizes() == at::IntArrayRef(shape); }
  std::int64_t end() const { return offset + tensor.numel(); }
};

/// Pieces begin at multiples of so many numbers in their tensor. Sums over a tensor that are made
/// stretch by stretch have the same bits whoever holds which.
constexpr std::int64_t shard_grain = 1024;

/// Which rank of a group holds which numbers of some tensors: a function of their names, shapes and
/// strides, and of the number of ranks. About as many on each; a rank's follow each other.
class ShardPlan {
 public:
  /// between_tensors: every tensor is whole on one rank. anywhere: those that are contiguous may be
  /// cut.
  enum class Cut { between_tensors, anywhere };
  struct Range {
    std::size_t tensor;  // index
    std::int64_t first;
    std::int64_t count;
  };

  ShardPlan(const NamedTensors& tensors, int ranks, Cut cut);

  int ranks() const { return static_cast<int>(ranges_.size()); }
  const std::vector<Range>& of_rank(int rank) const {
    return ranges_[static_cast<std::size_t>(rank)];
  }
  bool is_cut(std::size_t tensor) const { return pieces_[tensor] > 1; }

 private:
  std::vector<std::vector<Range>> ranges_;  // by rank
  std::vector<int> pieces_;                 // by tensor
};

/// The numbers that each rank holds to all ranks, in place. Collective.
void gather_shards(const NamedTensors& tensors, const ShardPlan& plan, const Comm& group);

/// Pieces put together, in the order in which their names first come; what comes twice is the
/// same. Error, before anything is allocated, when numbers of a tensor are missing, or
/// pieces have other shapes or dtypes.
NamedTensors put_together(const std::vector<Shard>& shards);

}  // namespace attune::parallel
