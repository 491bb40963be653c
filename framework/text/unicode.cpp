#include "text/unicode.hpp"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <cstdint>

#include "attune/error.hpp"

namespace attune::text {

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::string valid_utf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  const auto size = static_cast<std::int64_t>(text.size());
  for (std::int64_t at = 0; at < size;) {
    const std::int64_t start = at;
    UChar32 c;
    U8_NEXT(text.data(), at, size, c);
    if (c < 0)
      valid += "\uFFFD";
    else
      valid.append(text.data() + start, at - start);
  }
  return valid;
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

std::size_t count_code_points(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return !U8_IS_TRAIL(c); });
}

void append(std::string& text, char32_t c) {
  char bytes[U8_MAX_LENGTH];
  int length = 0;
  U8_APPEND_UNSAFE(bytes, length, c);
  text.append(bytes, length);
}

std::string normal_form(std::string_view text, NormalForm form) {
  if (is_ascii(text)) return std::string(text);
  UErrorCode status = U_ZERO_ERROR;
  const auto* normalizer = [&] {
    switch (form) {
      case NormalForm::nfc: return icu::Normalizer2::getNFCInstance(status);
      case NormalForm::nfd: return icu::Normalizer2::getNFDInstance(status);
      case NormalForm::nfkc: return icu::Normalizer2::getNFKCInstance(status);
      case NormalForm::nfkd: return icu::Normalizer2::getNFKDInstance(status);
    }
    return static_cast<const icu::Normalizer2*>(nullptr);
  }();
  ATTUNE_ASSERT(normalizer && U_SUCCESS(status), "ICU: {}", u_errorName(status));
  if (text.size() > INT32_MAX)
    fail("a text of {} bytes is too long to be brought to a Unicode normal form; cut it into documents below 2 GiB", text.size());
  std::string result;
  icu::StringByteSink<std::string> sink(&result, static_cast<std::int32_t>(text.size()));
  normalizer->normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())), sink, nullptr, status);
  ATTUNE_ASSERT(U_SUCCESS(status), "ICU: {}", u_errorName(status));
  return result;
}

std::string lowercase(std::string_view text) {
  std::string lower;
  lower.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    if (c == 0x130)  // the one letter whose lower case is two code points in every context
      lower += "i\u0307";
    else
      append(lower, u_tolower(c));
  }
  return lower;
}

namespace {
bool in_categories(char32_t c, std::uint32_t mask) { return (U_MASK(u_charType(c)) & mask) != 0; }
}  // namespace

bool is_whitespace(char32_t c) { return u_isUWhiteSpace(c); }
bool is_numeric(char32_t c) { return in_categories(c, U_GC_N_MASK); }
bool is_punctuation(char32_t c) { return in_categories(c, U_GC_P_MASK); }
bool is_ascii_symbol(char32_t c) { return c > ' ' && c < 0x7F && !u_isalnum(c); }
bool is_nonspacing_mark(char32_t c) { return in_categories(c, U_GC_MN_MASK); }
bool is_other(char32_t c) { return in_categories(c, U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CS_MASK | U_GC_CO_MASK); }
bool is_word(char32_t c) {
  return in_categories(c, U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK) || u_hasBinaryProperty(c, UCHAR_ALPHABETIC) ||
         u_hasBinaryProperty(c, UCHAR_JOIN_CONTROL);
}

}  // namespace attune::text
