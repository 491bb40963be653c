// Merges of a BPE vocabulary that comes without a list of them, derived as transformers derives
// them.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

namespace attune::text {

/// SentencePiece keeps a score for each piece and merges the pair whose piece has the best. As
/// merges: all ways to cut each piece into two that are pieces, by score, and of equals the one
/// with the longer parts first. file: named in errors.
nlohmann::json merges_by_score(const std::vector<std::string>& tokens,
                               const std::vector<double>& scores, const std::string& file);

/// The same by id, the lowest first, and for one piece the shorter left part first.
nlohmann::json merges_by_id(const std::vector<std::string>& tokens, const std::string& file);

/// Byte sequences with their ranks, as tiktoken and tekken.json keep them; the rank is both the id
/// and the order of merging.
using RankedBytes = std::vector<std::pair<std::string, std::int64_t>>;
/// The vocab and the merges, in the characters of byte-level BPE; every id is `first_id` higher
/// than the rank. Error when a byte sequence or a rank occurs twice.
std::pair<nlohmann::json, nlohmann::json> vocab_and_merges(RankedBytes tokens,
                                                           std::int64_t first_id,
                                                           const std::string& file);

}  // namespace attune::text
