// Second stage: splitting of the normalised text into words, which the model encodes separately.
#pragma once
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "text/aligned.hpp"

namespace attune::text {

/// Words, in order, as spans of one text.
struct Words {
  AlignedText text;
  std::vector<Span> spans;
  bool at_start = true;  // the first word is at the start of the original text

  std::string_view operator[](std::size_t i) const {
    return std::string_view(text.bytes()).substr(spans[i].begin, spans[i].end - spans[i].begin);
  }
  bool is_at_start(std::size_t i) const {
    return text.aligned() ? text.origin(spans[i].begin).begin == 0 : at_start && i == 0;
  }
};

/// Splits or rewrites each word.
using PreTokenizer = std::function<void(Words&)>;

/// null: the whole text is one word.
PreTokenizer make_pre_tokenizer(const nlohmann::json& json);
/// Whether a component treats the word at the start of the text differently, which requires tracked
/// origins.
bool depends_on_start(const nlohmann::json& json);

}  // namespace attune::text
