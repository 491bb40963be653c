// Shards: the elements of a tensor held by one rank of a group. Optimizer updates, checkpoints and
// gradients operate on shards; a whole tensor is a single shard. Decision record:
// docs/design/0028-shards.md.
#pragma once
#include <attune/comm.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "parallel/gradients.hpp"
#include "parallel/sharing.hpp"

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

/// Indices of tensors that travel between ranks together.
using Buckets = std::vector<std::vector<std::size_t>>;

/// Buckets of consecutive tensors. The tensors of a bucket have one dtype, also of their gradients;
/// the gradients are at most 25 MiB unless they are of a single tensor.
Buckets buckets_of(const NamedTensors& tensors);

/// Assignment of tensor elements to the ranks of a group, as a function of names, shapes, strides
/// and the number of ranks.
class ShardPlan {
 public:
  /// between_tensors: every tensor is whole on one rank. anywhere: contiguous tensors may be cut.
  enum class Cut { between_tensors, anywhere };
  struct Range {
    std::size_t tensor;  // index
    std::int64_t first;
    std::int64_t count;
  };

  /// Each rank gets about the same number of elements: of every bucket, or, between_tensors, of all
  /// together. In the order of a bucket, a rank's elements follow those of the rank before.
  ShardPlan(const NamedTensors& tensors, int ranks, Cut cut, Buckets buckets);
  /// A single bucket of all tensors.
  ShardPlan(const NamedTensors& tensors, int ranks, Cut cut);
  /// Of one rank, in the buckets of buckets_of().
  static ShardPlan whole(const NamedTensors& tensors);

  int ranks() const { return static_cast<int>(ranges_.size()); }
  const Buckets& buckets() const { return buckets_; }
  /// Bucket by bucket.
  const std::vector<Range>& of_rank(int rank) const {
    return ranges_[static_cast<std::size_t>(rank)];
  }
  std::span<const Range> of_rank(int rank, std::size_t bucket) const;
  /// Number of each rank's elements of a bucket.
  const std::vector<std::int64_t>& sizes(std::size_t bucket) const { return sizes_[bucket]; }
  /// Number of all of a rank's elements.
  std::int64_t size(int rank) const;
  /// The rank with the most elements.
  int fullest() const;
  bool is_cut(std::size_t tensor) const { return pieces_[tensor] > 1; }

 private:
  void divide(std::size_t tensor, std::int64_t size, std::int64_t begin, std::int64_t all,
              bool may_be_cut);

  Buckets buckets_;
  std::vector<std::vector<Range>> ranges_;        // by rank
  std::vector<std::vector<std::size_t>> starts_;  // by rank and bucket: its first range
  std::vector<std::vector<std::int64_t>> sizes_;  // by bucket and rank
  std::vector<int> pieces_;                       // by tensor
};

/// How many buckets ranks exchange at a time: as many are held beside what is computed.
constexpr std::size_t most_under_way = 2;

/// Distributes each rank's elements to all ranks, in place (all-gather). Collective.
void gather_shards(const NamedTensors& tensors, const ShardPlan& plan, const RankGroup& group);
/// The same among some of the plan's ranks, each of which gets the elements of these. members: the
/// plan's ranks, in the order of the group.
void gather_shards(const NamedTensors& tensors, const ShardPlan& plan, const RankGroup& group,
                   const std::vector<int>& members);

/// One rank's shards of the parameters' .grad, in memory as their parameters; zeros where there is
/// none.
std::vector<Shard> gradient_shards(const NamedTensors& parameters, const ShardPlan& plan, int rank);

/// The shards of one rank, from its elements of each bucket.
std::vector<Shard> shards_of(const NamedTensors& parameters, const ShardPlan& plan, int rank,
                             const std::vector<at::Tensor>& by_bucket);

/// Assembles whole tensors, ordered by the first occurrence of their names. Overlapping pieces must
/// agree. Error if elements of a tensor are missing or shapes or dtypes differ, before anything is
/// allocated.
NamedTensors put_together(const std::vector<Shard>& shards);

}  // namespace attune::parallel
