#include "text/decoder.hpp"

#include <algorithm>
#include <charconv>
#include <ranges>

#include "text/byte_level.hpp"
#include "text/part.hpp"
#include "text/pattern.hpp"
#include "text/unicode.hpp"

namespace attune::text {
namespace {

/// All tokens become one: a character may be cut between two.
Decoder byte_level(const Json&) {
  return [](std::vector<std::string>& tokens) {
    std::string text;
    for (const auto& token : tokens) text += bytes_of_characters(token).value_or(token);
    tokens = {std::move(text)};
  };
}

/// The byte that "<0x0A>" stands for.
std::optional<char> byte_of(std::string_view token) {
  unsigned byte = 0;
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return std::nullopt;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  if (error != std::errc() || end != token.data() + 5) return std::nullopt;
  return static_cast<char>(byte);
}

/// A run of byte tokens is the text they spell, or, when they spell none, one U+FFFD for each.
Decoder byte_fallback(const Json&) {
  return [](std::vector<std::string>& tokens) {
    std::vector<std::string> result;
    std::string bytes;
    const auto end_run = [&] {
      if (is_valid_utf8(bytes) && !bytes.empty())
        result.push_back(bytes);
      else
        result.insert(result.end(), bytes.size(), "\uFFFD");
      bytes.clear();
    };
    for (auto& token : tokens) {
      if (const auto byte = byte_of(token)) {
        bytes += *byte;
        continue;
      }
      end_run();
      result.push_back(std::move(token));
    }
    end_run();
    tokens = std::move(result);
  };
}

Decoder fuse(const Json&) {
  return [](std::vector<std::string>& tokens) { tokens = {joined(tokens, "")}; };
}

Decoder strip(const Json& json) {
  const auto content = json.at("content").get<std::string>();
  if (count_code_points(content) != 1)
    fail("tokenizer.json: the content '{}' of a Strip decoder must be one character", content);
  return [content, start = value_or<std::size_t>(json, "start", 0),
          stop = value_or<std::size_t>(json, "stop", 0)](std::vector<std::string>& tokens) {
    for (auto& token : tokens) {
      for (std::size_t i = 0; i < start && token.starts_with(content); ++i)
        token.erase(0, content.size());
      for (std::size_t i = 0; i < stop && token.ends_with(content); ++i)
        token.resize(token.size() - content.size());
    }
  };
}

Decoder replace(const Json& json) {
  return [pattern = make_pattern(json.at("pattern")),
          content = json.at("content").get<std::string>()](std::vector<std::string>& tokens) {
    std::vector<Span> matches;
    for (auto& token : tokens) {
      matches.clear();
      pattern.find_all(token, matches);
      for (const auto& match : std::views::reverse(matches))
        token.replace(match.begin, match.end - match.begin, content);
    }
  };
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
}

/// Takes away the spaces before English punctuation and contractions.
void clean_up(std::string& text) {
  static constexpr std::pair<std::string_view, std::string_view> replacements[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
  };
  for (const auto& [from, to] : replacements) replace_all(text, from, to);
}

Decoder word_piece(const Json& json) {
  return [prefix = value_or<std::string>(json, "prefix", "##"),
          cleanup = value_or(json, "cleanup", true)](std::vector<std::string>& tokens) {
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

/// A mark is a space, but in the first token it is nothing.
Decoder metaspace(const Json& json) {
  const auto mark = value_or<std::string>(json, "replacement", "\u2581");
  const bool prefixed = value_or(json, "add_prefix_space", true) &&
                        value_or<std::string>(json, "prepend_scheme", "always") != "never";
  return [mark, prefixed](std::vector<std::string>& tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i)
      replace_all(tokens[i], mark, i == 0 && prefixed ? "" : " ");
  };
}

/// "</w>" ends a word.
Decoder bpe(const Json& json) {
  return
      [suffix = value_or<std::string>(json, "suffix", "</w>")](std::vector<std::string>& tokens) {
        for (std::size_t i = 0; i < tokens.size(); ++i)
          replace_all(tokens[i], suffix, i + 1 == tokens.size() ? "" : " ");
      };
}

/// Connectionist temporal classification (Graves et al. 2006): repeated tokens count once, padding
/// not at all.
Decoder ctc(const Json& json) {
  return [pad = value_or<std::string>(json, "pad_token", "<pad>"),
          delimiter = value_or<std::string>(json, "word_delimiter_token", "|"),
          cleanup = value_or(json, "cleanup", true)](std::vector<std::string>& tokens) {
    tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
    for (auto& token : tokens) {
      replace_all(token, pad, "");
      if (!cleanup) continue;
      clean_up(token);
      replace_all(token, delimiter, " ");
    }
    std::erase(tokens, "");
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
  static const Makers<Decoder> makers = {
      {"BPEDecoder", bpe},
      {"ByteFallback", byte_fallback},
      {"ByteLevel", byte_level},
      {"CTC", ctc},
      {"Fuse", fuse},
      {"Metaspace", metaspace},
      {"Replace", replace},
      {"Sequence", sequence},
      {"Strip", strip},
      {"WordPiece", word_piece},
  };
  return make_part("decoder", json, makers);
}

}  // namespace attune::text
