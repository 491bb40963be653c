// Parallel loops over many tensors, divided into stretches of equal length.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel/shard.hpp"

namespace attune::train {

/// Elements per stretch. For an embedding these are a few rows, most of which a batch does not
/// touch.
constexpr std::int64_t stretch = parallel::shard_grain;

inline std::size_t stretches_of(std::int64_t size) {
  return static_cast<std::size_t>((size + stretch - 1) / stretch);
}

inline bool serves_kernels(const at::Tensor& tensor) {
  return tensor.is_cpu() && tensor.scalar_type() == at::kFloat && tensor.is_contiguous();
}

/// Calls work(tensor index, stretch index, first element, element count) for every stretch of
/// tensors with the given sizes.
template <class Work>
void for_each_stretch(const std::vector<std::int64_t>& sizes, const Work& work) {
  std::vector<std::int64_t> ends;  // number of stretches up to and including each tensor
  for (const auto size : sizes)
    ends.push_back((ends.empty() ? 0 : ends.back()) + (size + stretch - 1) / stretch);
  at::parallel_for(0, ends.empty() ? 0 : ends.back(), 16, [&](std::int64_t at, std::int64_t end) {
    for (auto tensor = std::upper_bound(ends.begin(), ends.end(), at) - ends.begin(); at < end;
         ++tensor) {
      const auto index = static_cast<std::size_t>(tensor);
      const auto begin = tensor == 0 ? 0 : ends[index - 1];
      for (; at < std::min(end, ends[index]); ++at) {
        const auto first = (at - begin) * stretch;
        const auto count = static_cast<std::size_t>(std::min(stretch, sizes[index] - first));
        work(index, static_cast<std::size_t>(at - begin), first, count);
      }
    }
  });
}

}  // namespace attune::train
