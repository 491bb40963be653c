// A data file, for people to read.
#pragma once
#include <string>

#include "data/store.hpp"

namespace attune {

/// Samples and token lengths by split, balance of labels, share of trained tokens, what was rejected, where it came from.
std::string data_card(const DataFile& file);

}  // namespace attune
