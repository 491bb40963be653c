// Third stage: the ids of one word.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

#include "text/vocabulary.hpp"

namespace attune::text {

struct Model {
  std::shared_ptr<const Vocabulary> vocabulary;
  /// Appends the ids of one word; threads may call it at the same time.
  std::function<void(std::string_view word, std::vector<std::int32_t>& ids)> encode;
};

Model make_model(const nlohmann::json& json);

/// Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909).
Model make_bpe(const nlohmann::json& json);
/// Longest match first (Wu et al. 2016, arXiv:1609.08144).
Model make_word_piece(const nlohmann::json& json);

}  // namespace attune::text
