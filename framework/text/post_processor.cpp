#include "text/post_processor.hpp"

#include <algorithm>

#include "text/part.hpp"
#include "text/unicode.hpp"
#include "text/vocabulary.hpp"

namespace attune::text {
namespace {

bool is_blank(char32_t c) {
  constexpr char32_t byte_level_space = U'\u0120';
  return c == byte_level_space || is_whitespace(c);
}

std::size_t leading_blanks(std::string_view token) {
  std::size_t count = 0;
  for (std::size_t at = 0; at < token.size() && is_blank(next_code_point(token, at));) ++count;
  return count;
}

std::size_t trailing_blanks(std::string_view token) {
  std::size_t count = 0;
  for (std::size_t at = token.size(); at > 0 && is_blank(previous_code_point(token, at));) ++count;
  return count;
}

/// A blank in a token is one character of the text; the space that add_prefix_space put before the
/// text is none.
void trim(Draft& draft, std::string_view text, bool prefixed) {
  for (std::size_t i = 0; i < draft.tokens.size(); ++i) {
    auto& [begin, end] = draft.encoding.spans[i];
    const auto leading = leading_blanks(draft.tokens[i]);
    const auto trailing = trailing_blanks(draft.tokens[i]);
    const bool added = prefixed && leading == 1 && (i == 0 || begin == 0);
    if (!added) begin = std::min(forward(text, begin, leading), end);
    if (trailing > 0) end = std::max(backward(text, end, trailing), begin);
  }
}

PostProcessor with_trim(PostProcessor processor, const Json& json) {
  if (value_or(json, "trim_offsets", true))
    processor.trim = [prefixed = value_or(json, "add_prefix_space", true)](
                         Draft& draft, std::string_view text) { trim(draft, text, prefixed); };
  return processor;
}

/// "single": a list of {"SpecialToken": {"id": name}} and one {"Sequence": {"id": "A"}}; the names
/// are explained in "special_tokens".
PostProcessor template_processing(const Json& json) {
  PostProcessor result;
  bool seen = false;
  for (const auto& piece : json.at("single")) {
    if (piece.contains("Sequence")) {
      if (seen)
        fail(
            "tokenizer.json: the template for a single text contains the text twice; it must "
            "contain it once");
      seen = true;
      continue;
    }
    const auto name = piece.at("SpecialToken").at("id").get<std::string>();
    const auto& known = json.at("special_tokens");
    if (!known.contains(name))
      fail(
          "tokenizer.json: the template names '{}', which is not in its special_tokens; add it "
          "there",
          name);
    for (const auto& id : known.at(name).at("ids"))
      (seen ? result.after : result.before).push_back(checked_id(id, name));
  }
  if (!seen)
    fail(
        "tokenizer.json: the template for a single text does not contain the text; add "
        "{{\"Sequence\": {{\"id\": \"A\"}}}}");
  return result;
}

PostProcessor bert(const Json& json) {
  const auto id = [&](const char* key) { return checked_id(json.at(key).at(1), key); };
  PostProcessor result;
  result.before = {id("cls")};
  result.after = {id("sep")};
  return result;
}

PostProcessor sequence(const Json& json) {
  PostProcessor result;
  for (auto& part : make_parts(json.at("processors"), make_post_processor)) {
    result.before.insert(result.before.begin(), part.before.begin(), part.before.end());
    result.after.insert(result.after.end(), part.after.begin(), part.after.end());
    result.trim = [first = std::move(result.trim), second = std::move(part.trim)](
                      Draft& draft, std::string_view text) {
      first(draft, text);
      second(draft, text);
    };
  }
  return result;
}

}  // namespace

PostProcessor make_post_processor(const Json& json) {
  if (json.is_null()) return {};
  static const Makers<PostProcessor> makers = {
      {"BertProcessing", bert},
      {"ByteLevel", [](const Json& json) { return with_trim({}, json); }},
      {"RobertaProcessing", [](const Json& json) { return with_trim(bert(json), json); }},
      {"Sequence", sequence},
      {"TemplateProcessing", template_processing},
  };
  return make_part("post-processor", json, makers);
}

}  // namespace attune::text
