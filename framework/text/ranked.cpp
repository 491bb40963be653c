#include <charconv>

#include "text/base64.hpp"
#include "text/convert.hpp"
#include "text/part.hpp"
#include "text/tokenizer_json.hpp"

namespace attune::text {
namespace {

Json byte_level(bool trim) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", trim},
          {"use_regex", false}};
}

/// Byte-level BPE that takes a word as it is where it is a token.
Json ranked_tokenizer(std::pair<Json, Json> vocab_and_merges, Json added,
                      const std::string& pattern) {
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", pattern}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  const Json model = {{"type", "BPE"},
                      {"dropout", nullptr},
                      {"unk_token", nullptr},
                      {"continuing_subword_prefix", nullptr},
                      {"end_of_word_suffix", nullptr},
                      {"fuse_unk", false},
                      {"byte_fallback", false},
                      {"ignore_merges", true},
                      {"vocab", std::move(vocab_and_merges.first)},
                      {"merges", std::move(vocab_and_merges.second)}};
  return tokenizer_json(std::move(added), nullptr,
                        {{"type", "Sequence"}, {"pretokenizers", {split, byte_level(true)}}},
                        byte_level(false), byte_level(true), model);
}

/// tekken.json's special tokens in the order of their ranks, and placeholders up to the number that
/// the file reserves.
std::vector<std::string> tekken_specials(const Json& tekken) {
  constexpr std::size_t most = 1'000'000;
  if (!tekken.contains("special_tokens"))
    fail(
        "tekken.json: has no \"special_tokens\" (an old form of the file); use a newer one, or the "
        "model's tokenizer.json");
  std::map<std::int64_t, std::string> by_rank;
  for (const auto& entry : tekken.at("special_tokens"))
    by_rank[entry.at("rank").get<std::int64_t>()] = entry.at("token_str").get<std::string>();
  const auto count = by_rank.size();
  if (count != tekken.at("special_tokens").size() ||
      (count > 0 && (by_rank.begin()->first != 0 ||
                     by_rank.rbegin()->first != static_cast<std::int64_t>(count) - 1)))
    fail(
        "tekken.json: the ranks of \"special_tokens\" must run from 0 without a gap; fetch the "
        "file again");
  std::vector<std::string> tokens;
  for (auto& [rank, token] : by_rank) tokens.push_back(std::move(token));
  const auto reserved =
      value_or<std::size_t>(tekken.at("config"), "default_num_special_tokens", count);
  if (reserved > most)
    fail(
        "tekken.json: \"default_num_special_tokens\" is {}, more than any file has; fetch it again",
        reserved);
  while (tokens.size() < reserved) tokens.push_back(fmt::format("<SPECIAL_{}>", tokens.size()));
  return tokens;
}

}  // namespace

Json tokenizer_json_from_tekken(const Json& tekken) {
  const std::string file = "tekken.json";
  const auto& config = tekken.at("config");
  const auto specials = tekken_specials(tekken);
  const auto reserved = static_cast<std::int64_t>(
      value_or<std::size_t>(config, "default_num_special_tokens", specials.size()));
  const auto& vocab = tekken.at("vocab");
  auto count = static_cast<std::int64_t>(vocab.size());
  if (const auto size = value_or<std::int64_t>(config, "default_vocab_size", -1); size >= 0)
    count = std::min(count, size - reserved);
  RankedBytes ranks;
  for (std::int64_t rank = 0; rank < count; ++rank) {
    const auto bytes = from_base64(vocab.at(rank).at("token_bytes").get<std::string>());
    if (!bytes)
      fail("tekken.json: the token_bytes of the rank {} are not base64; fetch the file again",
           rank);
    ranks.emplace_back(*bytes, rank);
  }
  auto parts = vocab_and_merges(std::move(ranks), reserved, file);
  Json added = Json::array();
  for (std::size_t id = 0; id < specials.size(); ++id) {
    parts.first[specials[id]] = id;
    added.push_back(added_token(static_cast<std::int64_t>(id), specials[id], true));
  }
  return ranked_tokenizer(std::move(parts), std::move(added),
                          config.at("pattern").get<std::string>());
}

bool is_tiktoken(std::string_view text) {
  const auto line = text.substr(0, text.find('\n'));
  const auto space = line.find(' ');
  return space != std::string_view::npos && from_base64(line.substr(0, space)) &&
         space + 1 < line.size() && line[space + 1] >= '0' && line[space + 1] <= '9';
}

RankedBytes read_tiktoken(std::string_view text, const std::string& file) {
  RankedBytes ranks;
  std::size_t row = 0;
  for (const auto& line : lines(text)) {
    ++row;
    if (line.empty()) continue;
    const auto space = line.find(' ');
    const auto bytes = space == std::string::npos
                           ? std::nullopt
                           : from_base64(std::string_view(line).substr(0, space));
    std::int64_t rank = -1;
    if (bytes) std::from_chars(line.data() + space + 1, line.data() + line.size(), rank);
    if (rank < 0)
      fail("{}:{}: must be a token in base64 and its rank, but is '{}'; fetch the file again", file,
           row, line);
    ranks.emplace_back(*bytes, rank);
  }
  return ranks;
}

Json tokenizer_json_from_tiktoken(const RankedBytes& ranks, const std::vector<std::string>& special,
                                  const std::string& file) {
  static const char* pattern =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  Json added = Json::array();
  for (auto id = static_cast<std::int64_t>(ranks.size()); const auto& token : special)
    added.push_back(added_token(id++, token, true));
  return ranked_tokenizer(vocab_and_merges(ranks, 0, file), std::move(added), pattern);
}

}  // namespace attune::text
