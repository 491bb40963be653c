#include "text/merges.hpp"

#include <algorithm>
#include <tuple>

#include "text/byte_level.hpp"
#include "text/part.hpp"
#include "text/unicode.hpp"
#include "text/vocabulary.hpp"

namespace attune::text {
namespace {

void check_length(std::string_view token, const std::string& file) {
  constexpr std::size_t longest_piece = 4096;  // all its cuts are looked up: its length squared
  if (token.size() > longest_piece)
    fail("{}: has a piece of {} bytes, which is too long; it is damaged, fetch it again", file,
         token.size());
}

Vocabulary by_place(const std::vector<std::string>& tokens) {
  Vocabulary vocabulary;
  for (std::size_t id = 0; id < tokens.size(); ++id)
    vocabulary.add(tokens[id], static_cast<std::int32_t>(id));
  return vocabulary;
}

struct Cut {
  // in characters
  std::size_t left_size;
  std::size_t right_size;
  std::int32_t left;
  std::int32_t right;
};

/// The ways to cut a token between two characters into two tokens, from the shortest left part.
std::vector<Cut> cuts(std::string_view token, const Vocabulary& vocabulary) {
  std::vector<Cut> result;
  if (!is_valid_utf8(token)) return result;
  for (std::size_t at = 0, size = 1; next_code_point(token, at), at < token.size(); ++size) {
    const auto left = vocabulary.id(token.substr(0, at));
    const auto right = vocabulary.id(token.substr(at));
    if (left && right) result.push_back({size, count_code_points(token) - size, *left, *right});
  }
  return result;
}

}  // namespace

Json merges_by_score(const std::vector<std::string>& tokens, const std::vector<double>& scores,
                     const std::string& file) {
  struct Merge : Cut {
    double score;
  };
  const auto vocabulary = by_place(tokens);
  std::vector<Merge> merges;
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    check_length(tokens[id], file);
    const auto first = merges.size();
    for (const auto& cut : cuts(tokens[id], vocabulary)) merges.push_back({cut, scores[id]});
    std::sort(merges.begin() + static_cast<std::ptrdiff_t>(first), merges.end(),
              [](const Merge& a, const Merge& b) {
                return std::pair(a.left, a.right) < std::pair(b.left, b.right);
              });
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::tuple(a.score, a.left_size, a.right_size) >
           std::tuple(b.score, b.left_size, b.right_size);
  });
  Json result = Json::array();
  for (const auto& merge : merges) result.push_back({tokens[merge.left], tokens[merge.right]});
  return result;
}

Json merges_by_id(const std::vector<std::string>& tokens, const std::string& file) {
  const auto vocabulary = by_place(tokens);
  Json result = Json::array();
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    check_length(tokens[id], file);
    // of equal tokens the last has the id
    if (vocabulary.id(tokens[id]) != static_cast<std::int32_t>(id)) continue;
    for (const auto& cut : cuts(tokens[id], vocabulary))
      result.push_back({tokens[cut.left], tokens[cut.right]});
  }
  return result;
}

std::pair<Json, Json> vocab_and_merges(RankedBytes tokens, std::int64_t first_id,
                                       const std::string& file) {
  std::sort(tokens.begin(), tokens.end(),
            [](const auto& a, const auto& b) { return a.second < b.second; });
  Vocabulary ranks;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto& [bytes, rank] = tokens[i];
    check_length(bytes, file);
    if (rank < 0 || rank > INT32_MAX - first_id)
      fail("{}: has the rank {}, which is not an id; it is damaged, fetch it again", file, rank);
    const bool rank_again = i > 0 && tokens[i - 1].second == rank;
    if (rank_again || ranks.id(bytes))
      fail("{}: has the rank {} or its token twice; it is damaged, fetch it again", file, rank);
    ranks.add(bytes, static_cast<std::int32_t>(rank));
  }
  const auto spelled = [](std::string_view bytes) {
    std::string text;
    append_byte_characters(text, bytes);
    return text;
  };
  Json vocab = Json::object();
  Json merges = Json::array();
  for (const auto& [bytes, rank] : tokens) {
    vocab[spelled(bytes)] = rank + first_id;
    // left rank, right rank, where
    std::vector<std::tuple<std::int32_t, std::int32_t, std::size_t>> cuts;
    for (std::size_t at = 1; at < bytes.size(); ++at) {
      const auto left = ranks.id(std::string_view(bytes).substr(0, at));
      const auto right = ranks.id(std::string_view(bytes).substr(at));
      if (left && right) cuts.emplace_back(*left, *right, at);
    }
    std::sort(cuts.begin(), cuts.end());
    for (const auto& [left, right, at] : cuts)
      merges.push_back({spelled(std::string_view(bytes).substr(0, at)),
                        spelled(std::string_view(bytes).substr(at))});
  }
  return {std::move(vocab), std::move(merges)};
}

}  // namespace attune::text
