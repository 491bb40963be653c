// Merges of BPE vocabularies without a merge list, derived as in transformers.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

namespace attune::text {

/// SentencePiece merges the pair whose result has the best score. Returns all splits of each piece
/// into two pieces, sorted by score; for equal scores, longer parts come first. file: name in
/// errors.
nlohmann::json merges_by_score(const std::vector<std::string>& tokens,
                               const std::vector<double>& scores, const std::string& file);

/// The same sorted by id, lowest first; for one piece, the shorter left part comes first.
nlohmann::json merges_by_id(const std::vector<std::string>& tokens, const std::string& file);

/// Byte sequences with their ranks, as in tiktoken and tekken.json. The rank is both the id and the
/// merge priority.
using RankedBytes = std::vector<std::pair<std::string, std::int64_t>>;
/// Vocabulary and merges in byte-level BPE's alphabet; ids are rank + first_id. Error for a
/// duplicate byte sequence or rank.
std::pair<nlohmann::json, nlohmann::json> vocab_and_merges(RankedBytes tokens,
                                                           std::int64_t first_id,
                                                           const std::string& file);

}  // namespace attune::text
