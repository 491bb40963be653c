// Human-readable descriptions of a data file.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/store.hpp"

namespace attune {

/// Summary: samples and token lengths by split, label balance, fraction of target tokens, rejected
/// records, sources.
std::string data_card(const DataFile& file);

/// Decodes token ids, including special tokens.
using Decode = std::function<std::string(const std::vector<std::int32_t>&)>;

/// Ten samples of 'train' (or of the first split), evenly spaced: texts with the target tokens
/// between guillemets, labels and shapes. Without `decode` texts are omitted.
std::string sample_lines(const DataFile& file, const Decode& decode);

}  // namespace attune
