#include "text/pre_tokenizer.hpp"

#include <algorithm>

#include "text/byte_level.hpp"
#include "text/part.hpp"
#include "text/pattern.hpp"
#include "text/unicode.hpp"

namespace attune::text {
namespace {

enum class Behaviour { isolated, removed, contiguous, merged_with_previous, merged_with_next };

struct Stretch {
  Span span;
  bool match;
};

/// The matches and what lies between them: all of the text, in order.
void stretches(std::string_view text, const std::vector<Span>& matches, bool invert,
               std::vector<Stretch>& result) {
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
    const bool joins =
        behaviour == Behaviour::contiguous ? stretch.match == previous : stretch.match && !previous;
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
  std::vector<Span> spans;
  std::vector<Span> matches;
  std::vector<Stretch> list;
  spans.reserve(words.text.bytes().size() / 4);
  for (std::size_t i = 0; i < words.spans.size(); ++i) {
    matches.clear();
    list.clear();
    find(words[i], matches);
    stretches(words[i], matches, invert, list);
    join(list, behaviour);
    const std::size_t start = words.spans[i].begin;
    for (const auto& stretch : list)
      spans.push_back({start + stretch.span.begin, start + stretch.span.end});
  }
  words.at_start = words.at_start && !spans.empty() && spans[0].begin == words.spans[0].begin;
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
  return [pattern = std::move(pattern)](std::string_view text, std::vector<Span>& matches) {
    pattern.find_all(text, matches);
  };
}

/// Writes all words anew, each as `write(i, result)` puts it.
template <class Write>
void rewrite(Words& words, Write write) {
  Rewriting result(words.text);
  std::vector<Span> spans;
  spans.reserve(words.spans.size());
  for (std::size_t i = 0; i < words.spans.size(); ++i) {
    const std::size_t start = result.size();
    write(i, result);
    spans.push_back({start, result.size()});
  }
  result.finish();
  words.spans = std::move(spans);
}

PreTokenizer byte_level(const Json& json) {
  static const Pattern gpt2(
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)");
  const bool prefix = value_or(json, "add_prefix_space", true);
  const bool regex = value_or(json, "use_regex", true);
  return [prefix, regex, find = each_match(gpt2)](Words& words) {
    if (prefix)
      rewrite(words, [&](std::size_t i, Rewriting& result) {
        const auto [begin, end] = words.spans[i];
        if (!words[i].starts_with(' ')) result.put(" ", begin);
        result.keep(begin, end);
      });
    if (regex) split(words, find, Behaviour::isolated);
    rewrite(words, [&](std::size_t i, Rewriting& result) {
      put_byte_characters(words.text, words.spans[i], result);
    });
  };
}

/// SentencePiece's way: a mark in the place of each space, and one before the text.
PreTokenizer metaspace(const Json& json) {
  const auto mark = value_or<std::string>(json, "replacement", "\u2581");
  const auto scheme = !value_or(json, "add_prefix_space", true)
                          ? "never"
                          : value_or<std::string>(json, "prepend_scheme", "always");
  if (scheme != "always" && scheme != "first" && scheme != "never")
    fail(
        "tokenizer.json: the prepend_scheme '{}' of a Metaspace is unknown; known are always, "
        "first, never",
        scheme);
  if (count_code_points(mark) != 1)
    fail("tokenizer.json: the replacement '{}' of a Metaspace must be one character", mark);
  const bool cuts = value_or(json, "split", true);
  const auto find = [mark](std::string_view word, std::vector<Span>& matches) {
    for (std::size_t at = 0; (at = word.find(mark, at)) != std::string_view::npos;
         at += mark.size())
      matches.push_back({at, at + mark.size()});
  };
  return [=](Words& words) {
    rewrite(words, [&](std::size_t i, Rewriting& result) {
      const auto [begin, end] = words.spans[i];
      const bool marked = words[i].starts_with(' ') || words[i].starts_with(mark);
      if (!marked && (scheme == "always" || (scheme == "first" && words.is_at_start(i))))
        result.put(mark, begin);
      for (std::size_t at = begin; at < end;) {
        const auto space = std::min(words.text.bytes().find(' ', at), end);
        result.keep(at, space);
        if (space < end) result.put(mark, space);
        at = space + 1;
      }
    });
    if (cuts) split(words, find, Behaviour::merged_with_next);
  };
}

Behaviour behaviour(const std::string& name) {
  static const std::map<std::string, Behaviour> behaviours = {
      {"Isolated", Behaviour::isolated},
      {"Removed", Behaviour::removed},
      {"Contiguous", Behaviour::contiguous},
      {"MergedWithPrevious", Behaviour::merged_with_previous},
      {"MergedWithNext", Behaviour::merged_with_next}};
  const auto found = behaviours.find(name);
  if (found == behaviours.end())
    fail(
        "tokenizer.json: the behavior '{}' of a Split is unknown; known are Isolated, Removed, "
        "Contiguous, MergedWithPrevious, MergedWithNext",
        name);
  return found->second;
}

PreTokenizer split_at_pattern(const Json& json) {
  return [find = each_match(make_pattern(json.at("pattern"))),
          behaviour = behaviour(json.at("behavior").get<std::string>()),
          invert = value_or(json, "invert", false)](Words& words) {
    split(words, find, behaviour, invert);
  };
}

PreTokenizer digits(const Json& json) {
  const auto behaviour =
      value_or(json, "individual_digits", false) ? Behaviour::isolated : Behaviour::contiguous;
  return [=](Words& words) { split(words, each(is_numeric), behaviour); };
}

bool is_symbol_or_punctuation(char32_t c) { return is_ascii_symbol(c) || is_punctuation(c); }

PreTokenizer whitespace_split(const Json&) {
  return [](Words& words) { split(words, each(is_whitespace), Behaviour::removed); };
}

PreTokenizer punctuation(const Json& json) {
  return [behaviour = behaviour(value_or<std::string>(json, "behavior", "Isolated"))](
             Words& words) { split(words, each(is_symbol_or_punctuation), behaviour); };
}

PreTokenizer bert(const Json&) {
  return [](Words& words) {
    split(words, each(is_whitespace), Behaviour::removed);
    split(words, each(is_symbol_or_punctuation), Behaviour::isolated);
  };
}

PreTokenizer delimiter(const Json& json) {
  const auto text = json.at("delimiter").get<std::string>();
  std::size_t end = 0;
  const char32_t wanted = text.empty() ? 0 : next_code_point(text, end);
  if (text.empty() || end != text.size())
    fail("tokenizer.json: the delimiter '{}' must be one character", text);
  return [wanted](Words& words) {
    split(words, each([wanted](char32_t c) { return c == wanted; }), Behaviour::removed);
  };
}

PreTokenizer fixed_length(const Json& json) {
  const auto length = value_or<std::int64_t>(json, "length", 5);
  if (length < 1)
    fail("tokenizer.json: the length of a FixedLength pre-tokenizer is {}; it must be 1 or more",
         length);
  const auto find = [length](std::string_view word, std::vector<Span>& matches) {
    for (std::size_t at = 0; at < word.size();) {
      const std::size_t start = at;
      for (std::int64_t i = 0; i < length && at < word.size(); ++i) next_code_point(word, at);
      matches.push_back({start, at});
    }
  };
  return [find](Words& words) { split(words, find, Behaviour::isolated); };
}

/// Where the script changes; spaces go with what is before them, and before the first script they
/// are dropped.
PreTokenizer unicode_scripts(const Json&) {
  const auto find = [](std::string_view word, std::vector<Span>& matches) {
    int last = any_script;
    std::size_t begin = std::string_view::npos;
    for (std::size_t at = 0; at < word.size();) {
      const std::size_t start = at;
      const int script = script_of(next_code_point(word, at));
      if (script == any_script || script == last) continue;
      if (begin != std::string_view::npos) matches.push_back({begin, start});
      begin = start;
      last = script;
    }
    if (begin != std::string_view::npos) matches.push_back({begin, word.size()});
  };
  return [find](Words& words) { split(words, find, Behaviour::removed, true); };
}

PreTokenizer whitespace(const Json&) {
  // What \w is in UTS #18; PCRE2's own leaves out marks and joiners.
  static const std::string word = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control})";
  return [find = each_match(Pattern("[" + word + "]+|[^" + word + R"(\s]+)"))](Words& words) {
    split(words, find, Behaviour::removed, true);
  };
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
      {"BertPreTokenizer", bert},        {"ByteLevel", byte_level},
      {"CharDelimiterSplit", delimiter}, {"Digits", digits},
      {"FixedLength", fixed_length},     {"Metaspace", metaspace},
      {"Punctuation", punctuation},      {"Sequence", sequence},
      {"Split", split_at_pattern},       {"UnicodeScripts", unicode_scripts},
      {"Whitespace", whitespace},        {"WhitespaceSplit", whitespace_split},
  };
  return make_part("pre-tokenizer", json, makers);
}

bool depends_on_start(const Json& json) {
  if (json.is_null()) return false;
  const auto parts = json.find("pretokenizers");
  return parts == json.end() ? value_or<std::string>(json, "prepend_scheme", "") == "first"
                             : std::any_of(parts->begin(), parts->end(), depends_on_start);
}

}  // namespace attune::text
