#include "text/normalizer.hpp"

#include "text/part.hpp"
#include "text/unicode.hpp"

namespace attune::text {
namespace {

/// The text with each code point replaced by what `map(c, result)` appends.
template <class Map>
std::string mapped(std::string_view text, Map map) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) map(next_code_point(text, at), result);
  return result;
}

/// Drops control characters, and makes each white space a plain one.
std::string cleaned(std::string_view text) {
  return mapped(text, [](char32_t c, std::string& result) {
    const bool spacing = c == '\t' || c == '\n' || c == '\r';
    if (!spacing && (c == 0xFFFD || is_other(c))) return;
    append(result, is_whitespace(c) ? U' ' : c);
  });
}

/// The blocks of CJK ideographs, which BERT reads one by one (Devlin et al. 2019, tokenization.py).
bool is_ideograph(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

std::string ideographs_apart(std::string_view text) {
  return mapped(text, [](char32_t c, std::string& result) {
    const bool apart = is_ideograph(c);
    if (apart) result += ' ';
    append(result, c);
    if (apart) result += ' ';
  });
}

std::string without_accents(std::string_view text) {
  return mapped(normal_form(text, NormalForm::nfd), [](char32_t c, std::string& result) {
    if (!is_nonspacing_mark(c)) append(result, c);
  });
}

Normalizer bert(const Json& json) {
  const bool clean = value_or(json, "clean_text", true);
  const bool apart = value_or(json, "handle_chinese_chars", true);
  const bool lower = value_or(json, "lowercase", true);
  const bool strip = value_or(json, "strip_accents", lower);
  return [=](std::string& text) {
    if (clean) text = cleaned(text);
    const bool ascii = is_ascii(text);
    if (apart && !ascii) text = ideographs_apart(text);
    if (strip && !ascii) text = without_accents(text);
    if (lower) text = lowercase(text);
  };
}

template <NormalForm form>
Normalizer unicode(const Json&) {
  return [](std::string& text) { text = normal_form(text, form); };
}

Normalizer lower(const Json&) {
  return [](std::string& text) { text = lowercase(text); };
}

Normalizer sequence(const Json& json) {
  return [parts = make_parts(json.at("normalizers"), make_normalizer)](std::string& text) {
    for (const auto& part : parts) part(text);
  };
}

}  // namespace

Normalizer make_normalizer(const Json& json) {
  if (json.is_null()) return [](std::string&) {};
  static const Makers<Normalizer> makers = {
      {"BertNormalizer", bert},
      {"Lowercase", lower},
      {"NFC", unicode<NormalForm::nfc>},
      {"NFD", unicode<NormalForm::nfd>},
      {"NFKC", unicode<NormalForm::nfkc>},
      {"NFKD", unicode<NormalForm::nfkd>},
      {"Sequence", sequence},
  };
  return make_part("normalizer", json, makers);
}

}  // namespace attune::text
