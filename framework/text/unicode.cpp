#include "text/unicode.hpp"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/uniset.h>
#include <unicode/uscript.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "attune/error.hpp"

namespace attune {
namespace text {
namespace {

constexpr std::string_view replacement = "\uFFFD";

/// Where the ASCII characters that begin at `at` end; eight at a time.
std::size_t ascii_prefix(std::string_view text, std::size_t at) {
  for (std::uint64_t word; at + sizeof word <= text.size(); at += sizeof word) {
    std::memcpy(&word, text.data() + at, sizeof word);
    if (word & 0x8080808080808080) break;
  }
  while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80) ++at;
  return at;
}

/// Moves past one character or ill-formed sequence, and says which it was.
bool next_sequence(std::string_view text, std::size_t& at) {
  auto next = static_cast<std::int64_t>(at);
  UChar32 c;
  U8_NEXT(text.data(), next, static_cast<std::int64_t>(text.size()), c);
  at = static_cast<std::size_t>(next);
  return c >= 0;
}

/// `use(span, well_formed)` for stretches that cover the text.
template <class Use>
void for_each_sequence(std::string_view text, Use use) {
  for (std::size_t at = 0; at < text.size();) {
    std::size_t start = at;
    if ((at = ascii_prefix(text, at)) > start) use(Span{start, at}, true);
    if (at == text.size()) return;
    start = at;
    const bool well_formed = next_sequence(text, at);
    use(Span{start, at}, well_formed);
  }
}

}  // namespace

bool is_ascii(std::string_view text) { return ascii_prefix(text, 0) == text.size(); }

std::string valid_utf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  for_each_sequence(text, [&](Span sequence, bool well_formed) {
    valid += well_formed ? text.substr(sequence.begin, sequence.end - sequence.begin) : replacement;
  });
  return valid;
}

bool is_valid_utf8(std::string_view text) {
  bool valid = true;
  for_each_sequence(text, [&](Span, bool well_formed) { valid &= well_formed; });
  return valid;
}

AlignedText aligned_valid_utf8(std::string_view text) {
  std::string valid;
  std::vector<Span> origins;
  valid.reserve(text.size());
  origins.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t start = at;
    const bool well_formed = next_sequence(text, at);
    valid += well_formed ? text.substr(start, at - start) : replacement;
    // one to four: vector::resize is made for many
    while (origins.size() < valid.size()) origins.push_back({start, at});
  }
  return AlignedText(valid, std::move(origins));
}

char32_t next_code_point(std::string_view text, std::size_t& at) {
  UChar32 c;
  U8_NEXT_UNSAFE(text.data(), at, c);
  return static_cast<char32_t>(c);
}

char32_t previous_code_point(std::string_view text, std::size_t& at) {
  UChar32 c;
  U8_PREV_UNSAFE(text.data(), at, c);
  return static_cast<char32_t>(c);
}

std::size_t forward(std::string_view text, std::size_t at, std::size_t count) {
  for (; count > 0 && at < text.size(); --count) next_sequence(text, at);
  return at;
}

std::size_t backward(std::string_view text, std::size_t at, std::size_t count) {
  auto place = static_cast<std::int64_t>(at);
  for (; count > 0 && place > 0; --count)
    U8_BACK_1(reinterpret_cast<const std::uint8_t*>(text.data()), 0, place);
  return static_cast<std::size_t>(place);
}

std::size_t count_code_points(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return !U8_IS_TRAIL(c); });
}

void append(std::string& text, char32_t c) {
  char bytes[U8_MAX_LENGTH];
  int length = 0;
  U8_APPEND_UNSAFE(bytes, length, c);
  text.append(bytes, length);
}

namespace {

const icu::Normalizer2& any_version(NormalForm form) {
  UErrorCode status = U_ZERO_ERROR;
  const bool compatible = form == NormalForm::nfkc || form == NormalForm::nfkd;
  const bool composed = form == NormalForm::nfc || form == NormalForm::nfkc;
  const auto* normalizer = compatible ? composed ? icu::Normalizer2::getNFKCInstance(status)
                                                 : icu::Normalizer2::getNFKDInstance(status)
                           : composed ? icu::Normalizer2::getNFCInstance(status)
                                      : icu::Normalizer2::getNFDInstance(status);
  ATTUNE_ASSERT(normalizer && U_SUCCESS(status), "ICU: {}", u_errorName(status));
  return *normalizer;
}

const icu::UnicodeSet& unicode_9() {
  static const icu::UnicodeSet set = [] {
    UErrorCode status = U_ZERO_ERROR;
    icu::UnicodeSet assigned(icu::UnicodeString("[:age=9.0:]"), status);
    ATTUNE_ASSERT(U_SUCCESS(status), "ICU: {}", u_errorName(status));
    assigned.freeze();
    return assigned;
  }();
  return set;
}

const icu::Normalizer2& normalizer_of(NormalForm form) {
  using Limited = icu::FilteredNormalizer2;
  static const Limited nfc(any_version(NormalForm::nfc), unicode_9());
  static const Limited nfd(any_version(NormalForm::nfd), unicode_9());
  static const Limited nfkc(any_version(NormalForm::nfkc), unicode_9());
  static const Limited nfkd(any_version(NormalForm::nfkd), unicode_9());
  switch (form) {
    case NormalForm::nfc: return nfc;
    case NormalForm::nfd: return nfd;
    case NormalForm::nfkc: return nfkc;
    default: return nfkd;
  }
}

/// Each code point's full decomposition, its marks in canonical order.
std::vector<Change> decomposed(std::string_view text, const icu::Normalizer2& normalizer) {
  std::vector<Change> changes;
  std::size_t unordered = 0;  // from here on the marks may still change places
  const auto order = [&] {
    std::stable_sort(changes.begin() + unordered, changes.end(),
                     [&](const Change& a, const Change& b) {
                       return normalizer.getCombiningClass(a.c) < normalizer.getCombiningClass(b.c);
                     });
    unordered = changes.size();
  };
  const auto add = [&](char32_t c, int change) {
    if (normalizer.getCombiningClass(c) == 0) order();
    changes.push_back({c, change});
    if (normalizer.getCombiningClass(c) == 0) unordered = changes.size();
  };
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    icu::UnicodeString parts;
    if (!normalizer.getDecomposition(static_cast<UChar32>(c), parts)) {
      add(c, 0);
      continue;
    }
    for (int i = 0; i < parts.length(); i = parts.moveIndex32(i, 1)) add(parts.char32At(i), i > 0);
  }
  order();
  return changes;
}

/// Canonical composition (UAX #15): a code point joins the last starter unless one between them
/// blocks it.
std::vector<Change> composed(const std::vector<Change>& decomposed,
                             const icu::Normalizer2& normalizer) {
  std::vector<Change> result;
  std::ptrdiff_t starter = -1;
  // of the code point before, among those after the starter; -1: there is none
  int last_class = -1;
  for (const auto& next : decomposed) {
    const int its_class = normalizer.getCombiningClass(next.c);
    if (starter >= 0 && (last_class < 0 || last_class < its_class)) {
      const auto pair = normalizer.composePair(result[starter].c, next.c);
      if (pair >= 0) {
        result[starter] = {static_cast<char32_t>(pair), result[starter].change + next.change - 1};
        continue;
      }
    }
    result.push_back(next);
    if (its_class == 0) {
      starter = static_cast<std::ptrdiff_t>(result.size()) - 1;
      last_class = -1;
    } else {
      last_class = its_class;
    }
  }
  return result;
}

}  // namespace

std::string normal_form(std::string_view text, NormalForm form) {
  if (is_ascii(text)) return std::string(text);
  if (text.size() > INT32_MAX)
    fail(
        "a text of {} bytes is too long for Unicode normalization; split it into documents below 2 "
        "GiB",
        text.size());
  std::string result;
  icu::StringByteSink<std::string> sink(&result, static_cast<std::int32_t>(text.size()));
  UErrorCode status = U_ZERO_ERROR;
  normalizer_of(form).normalizeUTF8(
      0, icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())), sink, nullptr,
      status);
  ATTUNE_ASSERT(U_SUCCESS(status), "ICU: {}", u_errorName(status));
  return result;
}

std::vector<Change> normal_form_changes(std::string_view text, NormalForm form) {
  const auto& normalizer = normalizer_of(form);
  auto changes = decomposed(text, normalizer);
  return form == NormalForm::nfc || form == NormalForm::nfkc ? composed(changes, normalizer)
                                                             : changes;
}

char32_t lowercase(char32_t c) { return c == 0x130 ? U'i' : u_tolower(static_cast<UChar32>(c)); }

std::size_t leading_whitespace(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t start = at;
    if (!is_whitespace(next_code_point(text, at))) return start;
  }
  return text.size();
}

std::size_t trailing_whitespace(std::string_view text) {
  for (std::size_t at = text.size(); at > 0;) {
    const std::size_t end = at;
    if (!is_whitespace(previous_code_point(text, at))) return end;
  }
  return 0;
}

namespace {

bool in_categories(char32_t c, std::uint32_t mask) { return (U_MASK(u_charType(c)) & mask) != 0; }

/// Assigned in that version already. A few code points have changed their category since: they are
/// named where it matters.
bool is_in_unicode(int version, char32_t c) {
  if (c < 0x80) return true;
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(c), age);
  return age[0] <= version;
}

}  // namespace

bool is_whitespace(char32_t c) { return u_isUWhiteSpace(c); }
bool is_numeric(char32_t c) { return in_categories(c, U_GC_N_MASK); }
bool is_punctuation(char32_t c) {
  return c == 0x166D || c == 0x111C9 || (in_categories(c, U_GC_P_MASK) && is_in_unicode(8, c));
}
bool is_ascii_symbol(char32_t c) { return c > ' ' && c < 0x7F && !u_isalnum(c); }
bool is_nonspacing_mark(char32_t c) {
  const bool became_one = c == 0x1885 || c == 0x1886 || c == 0xA9BD || c == 0x111C9;
  return c == 0x1734 || (in_categories(c, U_GC_MN_MASK) && is_in_unicode(8, c) && !became_one);
}
bool is_mark(char32_t c) {
  return c == 0x1CF2 || c == 0x1CF3 ||
         (in_categories(c, U_GC_M_MASK) && is_in_unicode(9, c) && c != 0x111C9);
}
bool is_other(char32_t c) {
  return in_categories(c, U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CS_MASK | U_GC_CO_MASK) &&
         is_in_unicode(8, c);
}
bool is_word(char32_t c) {
  return in_categories(c, U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK) ||
         u_hasBinaryProperty(c, UCHAR_ALPHABETIC) || u_hasBinaryProperty(c, UCHAR_JOIN_CONTROL);
}

int script_of(char32_t c) {
  if (c == ' ') return any_script;
  if (c == 0x30FC) return USCRIPT_HAN;
  UErrorCode status = U_ZERO_ERROR;
  const auto script = uscript_getScript(static_cast<UChar32>(c), &status);
  if (script == USCRIPT_UNKNOWN || !is_in_unicode(9, c)) return any_script;
  return script == USCRIPT_HIRAGANA || script == USCRIPT_KATAKANA ? USCRIPT_HAN : script;
}

}  // namespace text

std::size_t invalid_utf8(std::string_view text) {
  std::size_t count = 0;
  text::for_each_sequence(text, [&](Span, bool well_formed) { count += !well_formed; });
  return count;
}

}  // namespace attune
