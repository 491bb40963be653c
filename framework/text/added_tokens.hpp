// Tokens that are found in the text before anything else looks at it ("<|im_start|>", "[CLS]").
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
  bool special;      // left out by decode
  bool single_word;  // only where no letter or digit touches it
  // takes the white space before, after it
  bool lstrip;
  bool rstrip;
  bool normalized;  // looked for in the normalised text
};

/// A part of a text: an added token, or what lies between.
struct Segment {
  Span span;
  std::optional<std::int32_t> id;
};

/// Finds some of the added tokens; where several begin, the longest.
class AddedTokenFinder {
 public:
  /// pattern: what is looked for; differs from the token's content when that is normalised.
  void add(std::string pattern, AddedToken token);
  std::vector<Segment> cut(std::string_view text) const;

 private:
  struct Entry {
    std::string pattern;
    AddedToken token;
  };
  const Entry* at(std::string_view text) const;
  /// The first place from `at` on where one may begin.
  std::size_t next_candidate(std::string_view text, std::size_t at) const;
  std::array<std::vector<Entry>, 256> by_first_byte_;  // each from the longest to the shortest
  std::string first_bytes_;                            // for which there is one
};

class AddedTokens {
 public:
  /// "added_tokens" of a tokenizer.json; null: none.
  AddedTokens(const nlohmann::json& json, const Normalizer& normalizer);

  std::vector<Segment> cut_raw(std::string_view text) const { return raw_.cut(text); }
  std::vector<Segment> cut_normalized(std::string_view text) const { return normalized_.cut(text); }
  const Vocabulary& vocabulary() const { return vocabulary_; }
  /// What decoding begins with: the token, normalised if it is looked for in normalised text; null:
  /// no added token has this id.
  const std::string* decoded(std::int32_t id) const;
  bool is_special(std::int32_t id) const;

 private:
  AddedTokenFinder raw_;
  AddedTokenFinder normalized_;
  Vocabulary vocabulary_;
  // where they differ from the token
  std::unordered_map<std::int32_t, std::string> normalized_contents_;
  std::vector<std::int32_t> special_;  // sorted
};

}  // namespace attune::text
