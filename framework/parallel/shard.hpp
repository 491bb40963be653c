// Shards: the elements of a tensor held by one rank of a group. Optimizer updates, checkpoints and
// gradients operate on shards; a whole tensor is a single shard. Decision record:
// docs/design/0028-shards.md.
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
  std::int64_t offset = 0;          // of the first element held, in row-major order
  at::Tensor tensor;                // the whole tensor in its shape, or a piece as [n]

  Shard() = default;
  Shard(std::string tensor_name, const at::Tensor& whole)
      : name(std::move(tensor_name)), shape(whole.sizes().vec()), tensor(whole) {}
  /// Elements first .. first + count - 1, as a view. The tensor must be contiguous, unless the
  /// range covers all elements.
  static Shard of(const std::string& name, const at::Tensor& whole, std::int64_t first,
                  std::int64_t count);

  /// The same numbers of another tensor of that shape, in its memory.
  at::Tensor of_whole(const at::Tensor& whole) const {
    return of(name, whole, offset, tensor.numel()).tensor;
  }
  bool is_whole() const { return tensor.sizes() == at::IntArrayRef(shape); }
  std::int64_t end() const { return offset + tensor.numel(); }
};

/// Pieces begin at multiples of this number of elements. Sums computed in stretches of this length
/// have the same bits for any sharding.
constexpr std::int64_t shard_grain = 1024;

/// Assignment of tensor elements to the ranks of a group, as a function of names, shapes, strides
/// and the number of ranks. Each rank gets about the same number of elements, in consecutive
/// ranges.
class ShardPlan {
 public:
  /// between_tensors: every tensor is whole on one rank. anywhere: contiguous tensors may be cut.
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

/// Distributes each rank's elements to all ranks, in place (all-gather). Collective.
void gather_shards(const NamedTensors& tensors, const ShardPlan& plan, const Comm& group);

/// Assembles whole tensors, ordered by the first occurrence of their names. Overlapping pieces must
/// agree. Error if elements of a tensor are missing or shapes or dtypes differ, before anything is
/// allocated.
NamedTensors put_together(const std::vector<Shard>& shards);

}  // namespace attune::parallel
