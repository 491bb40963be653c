// What plugins draw from LibTorch's own generator.
#pragma once
#include <torch/torch.h>

#include "core/split_mix.hpp"

namespace attune {

/// Seeds the generator before a plugin is called, from the run's seed, the step and `key`, which
/// tells the call from others: the same on every rank, and again after a resume.
template <class... Key>
void seed_call(std::int64_t seed, std::int64_t step, Key... key) {
  torch::manual_seed(mixed({static_cast<std::uint64_t>(seed), static_cast<std::uint64_t>(step),
                            static_cast<std::uint64_t>(key)...}));
}

}  // namespace attune
