// Augmentation of training texts.
#pragma once
#include "prepare/recipe.hpp"

namespace attune {

/// Random deletion and swap of words (Wei and Zou 2019, arXiv:1901.11196) in each of the option's
/// fields that the record has. Each word is deleted with probability `delete`, but at least one
/// remains. Then a fraction `swap` of the words is exchanged with others. White space between words
/// is unchanged. The result is a function of the seed.
void augment(const AugmentOptions& options, std::uint64_t seed, Record& record);

}  // namespace attune
