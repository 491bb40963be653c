// Second stage: the normalised text is cut into the words that the model encodes one by one.
#pragma once
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "text/pattern.hpp"

namespace attune::text {

/// Words, in order, as stretches of one text.
struct Words {
  std::string text;
  std::vector<Span> spans;

  std::string_view operator[](std::size_t i) const { return std::string_view(text).substr(spans[i].begin, spans[i].end - spans[i].begin); }
};

/// Cuts each word further, or rewrites it.
using PreTokenizer = std::function<void(Words&)>;

/// null: the whole text is one word.
PreTokenizer make_pre_tokenizer(const nlohmann::json& json);

}  // namespace attune::text
