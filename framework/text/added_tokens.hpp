// Added tokens, which are matched before all other processing ("<|im_start|>", "[CLS]").
#pragma once
#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/normalizer.hpp"
#include "text/vocabulary.hpp"

namespace attune::text {

struct AddedToken {
  std::string content;
  std::int32_t id;
  bool special;      // omitted by decode
  bool single_word;  // matches only if not adjacent to a letter or digit
  // include white space before / after the match
  bool lstrip;
  bool rstrip;
  bool normalized;  // matched in the normalised text
};

/// A part of a text: an added token, or the text between added tokens.
struct Segment {
  Span span;
  std::optional<std::int32_t> id;
};

/// Matches a set of added tokens; the longest match wins.
class AddedTokenFinder {
 public:
  /// pattern: text to match; the normalised content for tokens with `normalized`.
  void add(std::string pattern, AddedToken token);
  std::vector<Segment> cut(std::string_view text) const;

 private:
  struct Entry {
    std::string pattern;
    AddedToken token;
  };
  const Entry* at(std::string_view text) const;
  /// The first position from `at` on at which a match may begin.
  std::size_t next_candidate(std::string_view text, std::size_t at) const;
  std::array<std::vector<Entry>, 256> by_first_byte_;  // each sorted by length, longest first
  std::string first_bytes_;                            // bytes with a pattern
};

class AddedTokens {
 public:
  /// json: "added_tokens" of a tokenizer.json; null if there are none.
  AddedTokens(const nlohmann::json& json, const Normalizer& normalizer);

  std::vector<Segment> cut_raw(std::string_view text) const { return raw_.cut(text); }
  std::vector<Segment> cut_normalized(std::string_view text) const { return normalized_.cut(text); }
  const Vocabulary& vocabulary() const { return vocabulary_; }
  /// Text of an added token for decoding, normalised if it is matched in normalised text; nullptr
  /// if no added token has this id.
  const std::string* decoded(std::int32_t id) const;
  bool is_special(std::int32_t id) const;

 private:
  AddedTokenFinder raw_;
  AddedTokenFinder normalized_;
  Vocabulary vocabulary_;
  // only those that differ from the token
  std::unordered_map<std::int32_t, std::string> normalized_contents_;
  std::vector<std::int32_t> special_;  // sorted
};

}  // namespace attune::text
