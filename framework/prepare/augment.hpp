// Changed copies of training texts.
#pragma once
#include "prepare/recipe.hpp"

namespace attune {

/// Swaps and deletions of words (Wei and Zou 2019, arXiv:1901.11196): in each of the fields that
/// the record has, every word is left out with the probability `delete` (one always stays), then
/// the share `swap` of them changes places with another. White space between words stays where it
/// is. The same seed gives the same text.
void augment(const AugmentOptions& options, std::uint64_t seed, Record& record);

}  // namespace attune
