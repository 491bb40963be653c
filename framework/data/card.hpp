// A data file, for people to read.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/store.hpp"

namespace attune {

/// Samples and token lengths by split, balance of labels, share of trained tokens, what was
/// rejected, where it came from.
std::string data_card(const DataFile& file);

/// The text of token ids, special tokens included.
using Decode = std::function<std::string(const std::vector<std::int32_t>&)>;

/// Ten samples of 'train' (or the first split), evenly spread over it: their texts, what is trained
/// on between guillemets, labels and shapes. Without `decode` texts are left out.
std::string sample_lines(const DataFile& file, const Decode& decode);

}  // namespace attune
