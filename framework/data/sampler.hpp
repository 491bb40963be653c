// The order of samples, a function of (seed, epoch, data size) and independent of the number of
// ranks.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/split_mix.hpp"

namespace attune {

/// A permutation of 0 .. size-1, a function of size, seed and stream: Fisher-Yates shuffle with
/// SplitMix64 (Steele, Lea and Flood 2014) and unbiased bounded integers (Lemire 2019). The result
/// is the same on every machine, which std::shuffle does not guarantee.
std::vector<std::int64_t> permutation(std::int64_t size, std::uint64_t seed, std::uint64_t stream);

/// A permutation of blocks of `block` consecutive samples, each of which stays in order and can be
/// read together. Block 1 gives a plain permutation.
std::vector<std::int64_t> block_permutation(std::int64_t size, std::int64_t block,
                                            std::uint64_t seed, std::uint64_t stream);

/// The permutations of all epochs form one endless stream. Step s takes `batch` positions of it,
/// from position s * batch on, so every step has exactly `batch` samples, even across the end of an
/// epoch.
class Sampler {
 public:
  /// ranks: size of the data-parallel group. Error if the batch is larger than the split, or cannot
  /// be divided over the ranks.
  Sampler(std::int64_t size, std::int64_t batch, std::uint64_t seed, int ranks = 1,
          std::int64_t block = 1);

  /// Rows of the global batch of a step (counted from 0).
  std::vector<std::int64_t> step_rows(std::int64_t step);
  /// Epoch (from 0) of the first sample of this step.
  std::int64_t epoch_of(std::int64_t step) const { return step * batch_ / size_; }

  /// A rank's contiguous share. Shares differ in size by at most one.
  static std::span<const std::int64_t> share(std::span<const std::int64_t> rows, int rank,
                                             int ranks);

 private:
  std::int64_t size_;
  std::int64_t batch_;
  std::int64_t block_;
  std::uint64_t seed_;
  std::int64_t epoch_ = -1;  // epoch of order_
  std::vector<std::int64_t> order_;
};

}  // namespace attune
