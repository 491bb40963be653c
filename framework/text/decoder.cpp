#include "text/decoder.hpp"

#include "text/byte_level.hpp"
#include "text/part.hpp"

namespace attune::text {
namespace {

Decoder byte_level(const Json&) {
  return [](std::vector<std::string>& tokens) {
    for (auto& token : tokens)
      if (auto bytes = bytes_of_characters(token)) token = std::move(*bytes);
  };
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) text.replace(at, from.size(), to);
}

/// Takes away the spaces before English punctuation and contractions.
void clean_up(std::string& text) {
  static constexpr std::pair<std::string_view, std::string_view> replacements[] = {
      {" .", "."},   {" ?", "?"},   {" !", "!"},           {" ,", ","},   {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
  };
  for (const auto& [from, to] : replacements) replace_all(text, from, to);
}

Decoder word_piece(const Json& json) {
  return [prefix = value_or<std::string>(json, "prefix", "##"), cleanup = value_or(json, "cleanup", true)](std::vector<std::string>& tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0) {
        if (tokens[i].starts_with(prefix))
          tokens[i].erase(0, prefix.size());
        else
          tokens[i].insert(0, " ");
      }
      if (cleanup) clean_up(tokens[i]);
    }
  };
}

Decoder spaced(const Json&) {
  return [](std::vector<std::string>& tokens) {
    for (std::size_t i = 1; i < tokens.size(); ++i) tokens[i].insert(0, " ");
  };
}

Decoder sequence(const Json& json) {
  return [parts = make_parts(json.at("decoders"), make_decoder)](std::vector<std::string>& tokens) {
    for (const auto& part : parts) part(tokens);
  };
}

}  // namespace

Decoder make_decoder(const Json& json) {
  if (json.is_null()) return spaced(json);
  static const Makers<Decoder> makers = {{"ByteLevel", byte_level}, {"Sequence", sequence}, {"WordPiece", word_piece}};
  return make_part("decoder", json, makers);
}

}  // namespace attune::text
