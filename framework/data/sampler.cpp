#include "data/sampler.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <numeric>
#include <utility>

namespace attune {

std::vector<std::int64_t> permutation(std::int64_t size, std::uint64_t seed, std::uint64_t stream) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(size));
  std::iota(order.begin(), order.end(), 0);
  // Seed and stream each pass the mixer, so that (1, 0) and (0, 1) have nothing in common.
  SplitMix64 random(SplitMix64(SplitMix64(seed)() + stream)());
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  return order;
}

std::vector<std::int64_t> block_permutation(std::int64_t size, std::int64_t block,
                                            std::uint64_t seed, std::uint64_t stream) {
  if (block == 1) return permutation(size, seed, stream);
  std::vector<std::int64_t> order;
  order.reserve(static_cast<std::size_t>(size));
  for (const auto chosen : permutation((size + block - 1) / block, seed, stream))
    for (auto row = chosen * block; row < std::min(size, (chosen + 1) * block); ++row)
      order.push_back(row);
  return order;
}

Sampler::Sampler(std::int64_t size, std::int64_t batch, std::uint64_t seed, int ranks,
                 std::int64_t block)
    : size_(size), batch_(batch), block_(block), seed_(seed) {
  ATTUNE_ASSERT(size > 0 && batch > 0 && block > 0, "size {} batch {} block {}", size, batch,
                block);
  if (batch > size)
    fail(
        "train.global_batch is {}, but the split has {} samples; set train.global_batch to at most "
        "{}",
        batch, size, size);
  if (ranks > batch)
    fail(
        "there are {} ranks, but train.global_batch is {}, so some ranks would be idle; run on at "
        "most {} ranks or raise train.global_batch",
        ranks, batch, batch);
}

std::vector<std::int64_t> Sampler::step_rows(std::int64_t step) {
  std::vector<std::int64_t> rows;
  for (std::int64_t position = step * batch_; position < (step + 1) * batch_; ++position) {
    if (const auto epoch = position / size_; epoch != epoch_) {
      order_ = block_permutation(size_, block_, seed_, static_cast<std::uint64_t>(epoch));
      epoch_ = epoch;
    }
    rows.push_back(order_[static_cast<std::size_t>(position % size_)]);
  }
  return rows;
}

std::span<const std::int64_t> Sampler::share(std::span<const std::int64_t> rows, int rank,
                                             int ranks) {
  const auto begin = rows.size() * static_cast<std::size_t>(rank) / static_cast<std::size_t>(ranks);
  const auto end =
      rows.size() * (static_cast<std::size_t>(rank) + 1) / static_cast<std::size_t>(ranks);
  return rows.subspan(begin, end - begin);
}

}  // namespace attune
