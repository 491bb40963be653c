// The order of samples: a function of (seed, epoch, data size) alone, never of the number of ranks.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/split_mix.hpp"

namespace attune {

/// 0 .. size-1 in an order that depends on size, seed and stream alone: Fisher-Yates over
/// SplitMix64 (Steele, Lea and Flood 2014), without the bias of a plain modulus (Lemire 2019). The
/// same on every machine, which std::shuffle does not promise.
std::vector<std::int64_t> permutation(std::int64_t size, std::uint64_t seed, std::uint64_t stream);

/// Blocks of so many neighbours in a shuffled order; within a block the order stays, so that it can
/// be read at once. Block 1: a permutation.
std::vector<std::int64_t> block_permutation(std::int64_t size, std::int64_t block,
                                            std::uint64_t seed, std::uint64_t stream);

/// The epochs' permutations make one endless stream; step s takes positions s * batch .. (s + 1) *
/// batch - 1 of it. So every step has exactly `batch` samples, also across an epoch's end.
class Sampler {
 public:
  /// ranks: of the data-parallel group. Error when the batch is larger than the split, or cannot be
  /// shared among the ranks.
  Sampler(std::int64_t size, std::int64_t batch, std::uint64_t seed, int ranks = 1,
          std::int64_t block = 1);

  /// Rows of the global batch of a step (from 0).
  std::vector<std::int64_t> step_rows(std::int64_t step);
  /// The epoch (from 0) that the first sample of this step belongs to.
  std::int64_t epoch_of(std::int64_t step) const { return step * batch_ / size_; }

  /// A rank's contiguous share; shares differ in size by at most one.
  static std::span<const std::int64_t> share(std::span<const std::int64_t> rows, int rank,
                                             int ranks);

 private:
  std::int64_t size_;
  std::int64_t batch_;
  std::int64_t block_;
  std::uint64_t seed_;
  std::int64_t epoch_ = -1;  // of order_
  std::vector<std::int64_t> order_;
};

}  // namespace attune
