#include "text/normalizer.hpp"

#include <algorithm>

#include "text/byte_level.hpp"
#include "text/part.hpp"
#include "text/pattern.hpp"
#include "text/unicode.hpp"

namespace attune::text {
namespace {

/// Writes the text anew: `map(c, at, result)` for each code point.
template <class Map>
void rewrite(AlignedText& text, Map map) {
  Rewriting result(text);
  const auto& bytes = text.bytes();
  for (std::size_t next = 0; next < bytes.size();) {
    const std::size_t at = next;
    map(next_code_point(bytes, next), at, result);
  }
  result.finish();
}

/// Drops the code points for which `is(c)`.
template <class Is>
void drop(AlignedText& text, Is is) {
  rewrite(text, [&](char32_t c, std::size_t at, Rewriting& result) {
    if (!is(c)) result.put(c, at);
  });
}

/// Drops control characters, and makes each white space a plain one.
void clean(AlignedText& text) {
  rewrite(text, [](char32_t c, std::size_t at, Rewriting& result) {
    const bool spacing = c == '\t' || c == '\n' || c == '\r';
    if (!spacing && (c == 0xFFFD || is_other(c))) return;
    result.put(is_whitespace(c) ? U' ' : c, at);
  });
}

/// The blocks of CJK ideographs, which BERT reads one by one (Devlin et al. 2019, tokenization.py).
bool is_ideograph(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

void set_ideographs_apart(AlignedText& text) {
  rewrite(text, [](char32_t c, std::size_t at, Rewriting& result) {
    const bool apart = is_ideograph(c);
    if (apart) result.put(U' ', at);
    result.put(c, at);
    if (apart) result.put(U' ', at);
  });
}

void lower(AlignedText& text) {
  rewrite(text, [](char32_t c, std::size_t at, Rewriting& result) {
    if (c < 0x80) return result.put(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c, at);
    result.put(lowercase(c), at);
    // the one letter whose lower case is two code points in every context
    if (c == 0x130) result.put(U'\u0307', at);
  });
}

void bring_to(AlignedText& text, NormalForm form) {
  if (is_ascii(text.bytes())) return;
  if (text.aligned())
    transform(text, normal_form_changes(text.bytes(), form));
  else
    text = AlignedText(normal_form(text.bytes(), form));
}

Normalizer bert(const Json& json) {
  const bool clean_text = value_or(json, "clean_text", true);
  const bool apart = value_or(json, "handle_chinese_chars", true);
  const bool lowercase = value_or(json, "lowercase", true);
  const bool strip = value_or(json, "strip_accents", lowercase);
  return [=](AlignedText& text) {
    if (clean_text) clean(text);
    const bool ascii = is_ascii(text.bytes());
    if (apart && !ascii) set_ideographs_apart(text);
    if (strip && !ascii) {
      bring_to(text, NormalForm::nfd);
      drop(text, is_nonspacing_mark);
    }
    if (lowercase) lower(text);
  };
}

template <NormalForm form>
Normalizer unicode(const Json&) {
  return [](AlignedText& text) { bring_to(text, form); };
}

/// SentencePiece's rules for machine translation, without its NFKC.
Normalizer nmt(const Json&) {
  return [](AlignedText& text) {
    rewrite(text, [](char32_t c, std::size_t at, Rewriting& result) {
      if ((c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F ||
          c == 0x9F)
        return;
      const bool space = c == '\t' || c == '\n' || c == '\f' || c == '\r' || c == 0x1680 ||
                         (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 ||
                         c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
      result.put(space ? U' ' : c, at);
    });
  };
}

Normalizer strip(const Json& json) {
  return [left = value_or(json, "strip_left", true),
          right = value_or(json, "strip_right", true)](AlignedText& text) {
    const auto& bytes = text.bytes();
    const std::size_t begin = left ? leading_whitespace(bytes) : 0;
    text = text.slice(begin, right ? std::max(begin, trailing_whitespace(bytes)) : bytes.size());
  };
}

Normalizer strip_accents(const Json&) {
  return [](AlignedText& text) { drop(text, is_mark); };
}

Normalizer prepend(const Json& json) {
  return [prefix = json.at("prepend").get<std::string>()](AlignedText& text) {
    if (text.bytes().empty()) return;
    Rewriting result(text);
    result.put(prefix, 0);
    result.keep(0, text.bytes().size());
    result.finish();
  };
}

Normalizer replace(const Json& json) {
  return [pattern = make_pattern(json.at("pattern")),
          content = json.at("content").get<std::string>()](AlignedText& text) {
    std::vector<Span> matches;
    pattern.find_all(text.bytes(), matches);
    if (matches.empty()) return;
    Rewriting result(text);
    std::size_t done = 0;
    for (const auto& match : matches) {
      result.keep(done, match.begin);
      result.put(content, match.end - 1);
      done = match.end;
    }
    result.keep(done, text.bytes().size());
    result.finish();
  };
}

Normalizer byte_level(const Json&) {
  return [](AlignedText& text) {
    Rewriting result(text);
    put_byte_characters(text, {0, text.bytes().size()}, result);
    result.finish();
  };
}

Normalizer sequence(const Json& json) {
  return [parts = make_parts(json.at("normalizers"), make_normalizer)](AlignedText& text) {
    for (const auto& part : parts) part(text);
  };
}

}  // namespace

Normalizer make_normalizer(const Json& json) {
  if (json.is_null()) return [](AlignedText&) {};
  static const Makers<Normalizer> makers = {
      {"BertNormalizer", bert},
      {"ByteLevel", byte_level},
      {"Lowercase", [](const Json&) { return Normalizer(lower); }},
      {"NFC", unicode<NormalForm::nfc>},
      {"NFD", unicode<NormalForm::nfd>},
      {"NFKC", unicode<NormalForm::nfkc>},
      {"NFKD", unicode<NormalForm::nfkd>},
      {"Nmt", nmt},
      {"Precompiled", make_precompiled},
      {"Prepend", prepend},
      {"Replace", replace},
      {"Sequence", sequence},
      {"Strip", strip},
      {"StripAccents", strip_accents},
  };
  return make_part("normalizer", json, makers);
}

}  // namespace attune::text
