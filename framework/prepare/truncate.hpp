// Truncation of long samples.
#pragma once
#include <attune/dataset.hpp>

#include "prepare/recipe.hpp"

namespace attune {

/// Limits a sample to max_length tokens: unchanged, truncated, or as several windows. Ragged
/// columns with the same length as `tokens` are cut in the same way. frame: tokens that the
/// tokenizer adds around a text ([CLS], [SEP]); they are kept at the ends of a truncated sample.
/// Rejected if the policy drops long samples, or if no token of `loss_mask` remains.
std::vector<Sample> truncated(const TruncateOptions& options, Sample sample,
                              const std::vector<std::int32_t>& frame);

}  // namespace attune
