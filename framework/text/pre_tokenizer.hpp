// Second stage: the normalised text is cut into the words that the model encodes one by one.
#pragma once
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "text/aligned.hpp"

namespace attune::text {

/// Words, in order, as stretches of one text.
struct Words {
  AlignedText text;
  std::vector<Span> spans;
  bool at_start = true;  // the first word begins where the original text does

  std::string_view operator[](std::size_t i) const {
    return std::string_view(text.bytes()).substr(spans[i].begin, spans[i].end - spans[i].begin);
  }
  bool is_at_start(std::size_t i) const {
    return text.aligned() ? text.origin(spans[i].begin).begin == 0 : at_start && i == 0;
  }
};

/// Cuts each word further, or rewrites it.
using PreTokenizer = std::function<void(Words&)>;

/// null: the whole text is one word.
PreTokenizer make_pre_tokenizer(const nlohmann::json& json);
/// Some part does otherwise with the word at the start of the text: it must know where words come
/// from.
bool depends_on_start(const nlohmann::json& json);

}  // namespace attune::text
