#include "text/pre_tokenizer.hpp"

#include <algorithm>

#include "text/byte_level.hpp"
#include "text/part.hpp"
#include "text/unicode.hpp"

namespace attune::text {
namespace {

enum class Behaviour { isolated, removed, contiguous, merged_with_previous, merged_with_next };

struct Stretch {
  Span span;
  bool match;
};

/// The matches and what lies between them: all of the text, in order.
void stretches(std::string_view text, const std::vector<Span>& matches, bool invert, std::vector<Stretch>& result) {
  std::size_t at = 0;
  for (const auto& match : matches) {
    if (at < match.begin) result.push_back({{at, match.begin}, invert});
    result.push_back({match, !invert});
    at = match.end;
  }
  if (at < text.size()) result.push_back({{at, text.size()}, invert});
}

/// Joins neighbours in place, as `tokenizers` does in NormalizedString::split.
void join(std::vector<Stretch>& list, Behaviour behaviour) {
  if (behaviour == Behaviour::isolated) return;
  if (behaviour == Behaviour::removed) {
    std::erase_if(list, [](const Stretch& s) { return s.match; });
    return;
  }
  const bool from_right = behaviour == Behaviour::merged_with_next;
  if (from_right) std::reverse(list.begin(), list.end());
  std::vector<Stretch> joined;
  bool previous = false;
  for (const auto& stretch : list) {
    const bool joins = behaviour == Behaviour::contiguous ? stretch.match == previous : stretch.match && !previous;
    previous = stretch.match;
    if (!joins || joined.empty())
      joined.push_back(stretch);
    else if (from_right)
      joined.back().span.begin = stretch.span.begin;
    else
      joined.back().span.end = stretch.span.end;
  }
  if (from_right) std::reverse(joined.begin(), joined.end());
  list = std::move(joined);
}

/// Cuts each word at what `find(word, matches)` appends.
template <class Find>
void split(Words& words, const Find& find, Behaviour behaviour, bool invert = false) {
  std::vector<Span> spans, matches;
  std::vector<Stretch> list;
  spans.reserve(words.text.size() / 4);
  for (std::size_t i = 0; i < words.spans.size(); ++i) {
    matches.clear();
    list.clear();
    find(words[i], matches);
    stretches(words[i], matches, invert, list);
    join(list, behaviour);
    const std::size_t start = words.spans[i].begin;
    for (const auto& stretch : list) spans.push_back({start + stretch.span.begin, start + stretch.span.end});
  }
  words.spans = std::move(spans);
}

/// Finds the code points for which `is(c)`, each a match of its own.
template <class Is>
auto each(Is is) {
  return [is](std::string_view text, std::vector<Span>& matches) {
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t start = at;
      if (is(next_code_point(text, at))) matches.push_back({start, at});
    }
  };
}

auto each_match(Pattern pattern) {
  return [pattern = std::move(pattern)](std::string_view text, std::vector<Span>& matches) { pattern.find_all(text, matches); };
}

/// Writes all words anew, each as `write(word, text)` appends it.
template <class Write>
void rewrite(Words& words, Write write) {
  Words result;
  result.text.reserve(words.text.size() + words.text.size() / 4);
  result.spans.reserve(words.spans.size());
  for (std::size_t i = 0; i < words.spans.size(); ++i) {
    const std::size_t start = result.text.size();
    write(words[i], result.text);
    result.spans.push_back({start, result.text.size()});
  }
  words = std::move(result);
}

PreTokenizer byte_level(const Json& json) {
  static const Pattern gpt2(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)");
  const bool prefix = value_or(json, "add_prefix_space", true);
  const bool regex = value_or(json, "use_regex", true);
  return [prefix, regex, find = each_match(gpt2)](Words& words) {
    if (prefix)
      rewrite(words, [](std::string_view word, std::string& text) {
        if (!word.starts_with(' ')) text += ' ';
        text += word;
      });
    if (regex) split(words, find, Behaviour::isolated);
    rewrite(words, [](std::string_view word, std::string& text) { append_byte_characters(text, word); });
  };
}

Behaviour behaviour(const std::string& name) {
  static const std::map<std::string, Behaviour> behaviours = {{"Isolated", Behaviour::isolated},
                                                              {"Removed", Behaviour::removed},
                                                              {"Contiguous", Behaviour::contiguous},
                                                              {"MergedWithPrevious", Behaviour::merged_with_previous},
                                                              {"MergedWithNext", Behaviour::merged_with_next}};
  const auto found = behaviours.find(name);
  if (found == behaviours.end())
    fail("tokenizer.json: the behavior '{}' of a Split is unknown; known are Isolated, Removed, Contiguous, MergedWithPrevious, MergedWithNext",
         name);
  return found->second;
}

PreTokenizer split_at_pattern(const Json& json) {
  const auto& pattern = json.at("pattern");
  const auto expression = pattern.contains("Regex") ? pattern.at("Regex").get<std::string>() : escaped(pattern.at("String").get<std::string>());
  return [find = each_match(Pattern(expression)), behaviour = behaviour(json.at("behavior").get<std::string>()),
          invert = value_or(json, "invert", false)](Words& words) { split(words, find, behaviour, invert); };
}

PreTokenizer digits(const Json& json) {
  const auto behaviour = value_or(json, "individual_digits", false) ? Behaviour::isolated : Behaviour::contiguous;
  return [=](Words& words) { split(words, each(is_numeric), behaviour); };
}

PreTokenizer bert(const Json&) {
  return [](Words& words) {
    split(words, each(is_whitespace), Behaviour::removed);
    split(words, each([](char32_t c) { return is_ascii_symbol(c) || is_punctuation(c); }), Behaviour::isolated);
  };
}

PreTokenizer whitespace(const Json&) {
  // What \w is in UTS #18; PCRE2's own leaves out marks and joiners.
  static const std::string word = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control})";
  return [find = each_match(Pattern("[" + word + "]+|[^" + word + R"(\s]+)"))](Words& words) { split(words, find, Behaviour::removed, true); };
}

PreTokenizer sequence(const Json& json) {
  return [parts = make_parts(json.at("pretokenizers"), make_pre_tokenizer)](Words& words) {
    for (const auto& part : parts) part(words);
  };
}

}  // namespace

PreTokenizer make_pre_tokenizer(const Json& json) {
  if (json.is_null()) return [](Words&) {};
  static const Makers<PreTokenizer> makers = {
      {"BertPreTokenizer", bert}, {"ByteLevel", byte_level},      {"Digits", digits},
      {"Sequence", sequence},     {"Split", split_at_pattern}, {"Whitespace", whitespace},
  };
  return make_part("pre-tokenizer", json, makers);
}

}  // namespace attune::text
