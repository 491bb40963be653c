// Samples that are too long.
#pragma once
#include <attune/dataset.hpp>

#include "prepare/recipe.hpp"

namespace attune {

/// Brings a sample to max_length tokens: as it is, cut, or as several windows. `tokens` and every
/// ragged column as long as it are cut alike. frame: what the tokenizer puts around a text ([CLS],
/// [SEP]); where a sample begins or ends with it, the cut leaves that in place. Rejected: too long
/// and the policy is to drop, or the cut leaves no token of `loss_mask` to train on.
std::vector<Sample> truncated(const TruncateOptions& options, Sample sample,
                              const std::vector<std::int32_t>& frame);

}  // namespace attune
