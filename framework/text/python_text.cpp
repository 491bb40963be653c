#include "text/python_text.hpp"

#include <fmt/format.h>
#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "text/unicode.hpp"

namespace attune::python {
namespace {

template <class Drop>
std::string_view dropping(std::string_view text, Ends ends, Drop drop) {
  while (ends != Ends::right && !text.empty()) {
    std::size_t end = 0;
    if (!drop(text::next_code_point(text, end))) break;
    text.remove_prefix(end);
  }
  while (ends != Ends::left && !text.empty()) {
    std::size_t begin = text.size();
    if (!drop(text::previous_code_point(text, begin))) break;
    text = text.substr(0, begin);
  }
  return text;
}

std::string utf8(const icu::UnicodeString& text) {
  std::string result;
  return text.toUTF8String(result);
}

icu::UnicodeString utf16(std::string_view text) {
  return icu::UnicodeString::fromUTF8({text.data(), static_cast<int>(text.size())});
}

std::string title_of(char32_t c) {
  return utf8(icu::UnicodeString(static_cast<UChar32>(c)).toTitle(nullptr, icu::Locale::getRoot()));
}

bool is_cased(char32_t c) { return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_CASED); }

/// Whether the text has cased characters, and all of them fit.
template <class Fits>
bool all_cased(std::string_view text, Fits fits) {
  bool any = false;
  for (std::size_t at = 0; at < text.size();) {
    const auto c = text::next_code_point(text, at);
    if (!is_cased(c)) continue;
    if (!fits(static_cast<UChar32>(c))) return false;
    any = true;
  }
  return any;
}

bool ends_line(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

bool is_printable(char32_t c) {
  if (c == ' ') return true;
  const auto mask =
      U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CS_MASK | U_GC_CO_MASK | U_GC_CN_MASK | U_GC_Z_MASK;
  return (U_MASK(u_charType(static_cast<UChar32>(c))) & mask) == 0;
}

std::string escaped(char32_t c) {
  const auto number = static_cast<std::uint32_t>(c);
  if (c <= 0xFF) return fmt::format("\\x{:02x}", number);
  return c <= 0xFFFF ? fmt::format("\\u{:04x}", number) : fmt::format("\\U{:08x}", number);
}

}  // namespace

bool is_space(char32_t c) { return text::is_whitespace(c) || (c >= 0x1C && c <= 0x1F); }

std::string_view stripped(std::string_view text, Ends ends) {
  return dropping(text, ends, is_space);
}

std::string_view stripped(std::string_view text, std::string_view characters, Ends ends) {
  std::u32string set;
  for (std::size_t at = 0; at < characters.size();) set += text::next_code_point(characters, at);
  return dropping(text, ends, [&](char32_t c) { return set.find(c) != std::u32string::npos; });
}

std::string upper(std::string_view text) {
  return utf8(utf16(text).toUpper(icu::Locale::getRoot()));
}
std::string lower(std::string_view text) {
  return utf8(utf16(text).toLower(icu::Locale::getRoot()));
}

std::string capitalized(std::string_view text) {
  if (text.empty()) return "";
  std::size_t end = 0;
  const auto first = text::next_code_point(text, end);
  return title_of(first) + lower(text.substr(end));
}

std::string titled(std::string_view text) {
  std::string result;
  bool inside = false;
  for (std::size_t at = 0; at < text.size();) {
    const auto begin = at;
    const auto c = text::next_code_point(text, at);
    result += inside ? lower(text.substr(begin, at - begin)) : title_of(c);
    inside = is_cased(c);
  }
  return result;
}

bool is_upper(std::string_view text) {
  return all_cased(text, [](UChar32 c) { return u_isUUppercase(c) != 0; });
}
bool is_lower(std::string_view text) {
  return all_cased(text, [](UChar32 c) { return u_isULowercase(c) != 0; });
}

Texts split(std::string_view text, std::int64_t limit) {
  Texts parts;
  for (text = stripped(text, Ends::left); !text.empty(); text = stripped(text, Ends::left)) {
    if (limit >= 0 && std::ssize(parts) == limit) {
      parts.emplace_back(text);
      break;
    }
    std::size_t end = 0;
    for (std::size_t next = 0; next < text.size(); end = next)
      if (is_space(text::next_code_point(text, next))) break;
    parts.emplace_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return parts;
}

Texts split(std::string_view text, std::string_view separator, std::int64_t limit) {
  Texts parts;
  for (auto at = text.find(separator); at != std::string_view::npos && std::ssize(parts) != limit;
       at = text.find(separator)) {
    parts.emplace_back(text.substr(0, at));
    text.remove_prefix(at + separator.size());
  }
  parts.emplace_back(text);
  return parts;
}

Texts split_from_right(std::string_view text, std::string_view separator, std::int64_t limit) {
  Texts parts;
  for (auto at = text.rfind(separator); at != std::string_view::npos && std::ssize(parts) != limit;
       at = text.rfind(separator)) {
    parts.emplace_back(text.substr(at + separator.size()));
    text = text.substr(0, at);
  }
  parts.emplace_back(text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Texts lines(std::string_view text) {
  Texts lines;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    const auto end = at;
    const auto c = text::next_code_point(text, at);
    if (!ends_line(c)) continue;
    lines.emplace_back(text.substr(begin, end - begin));
    if (c == '\r' && at < text.size() && text[at] == '\n') ++at;
    begin = at;
  }
  if (begin < text.size()) lines.emplace_back(text.substr(begin));
  return lines;
}

std::string replaced(std::string_view text, std::string_view from, std::string_view to,
                     std::int64_t limit) {
  std::string result;
  if (!from.empty()) {
    const auto parts = split(text, from, limit);
    for (std::size_t i = 0; i < parts.size(); ++i) result.append(i == 0 ? "" : to).append(parts[i]);
    return result;
  }
  for (const auto& c : characters(text)) {  // before every character and at the end
    if (limit-- != 0) result += to;
    result += c;
    limit = std::max<std::int64_t>(limit, -1);
  }
  return limit != 0 ? result.append(to) : result;
}

std::int64_t length(std::string_view text) {
  return static_cast<std::int64_t>(text::count_code_points(text));
}

Texts characters(std::string_view text) {
  Texts characters;
  for (std::size_t at = 0; at < text.size();) {
    const auto begin = at;
    text::next_code_point(text, at);
    characters.emplace_back(text.substr(begin, at - begin));
  }
  return characters;
}

std::vector<std::int64_t> slice(std::int64_t size, std::optional<std::int64_t> start,
                                std::optional<std::int64_t> stop, std::int64_t step) {
  const std::int64_t lowest = step > 0 ? 0 : -1;
  const std::int64_t highest = step > 0 ? size : size - 1;
  const auto place = [&](std::optional<std::int64_t> given, std::int64_t otherwise) {
    return given ? std::clamp(*given < 0 ? *given + size : *given, lowest, highest) : otherwise;
  };
  const auto first = place(start, step > 0 ? lowest : highest);
  const auto end = place(stop, step > 0 ? highest : lowest);
  std::vector<std::int64_t> places;
  for (auto i = first; step > 0 ? i < end : i > end; i += step) places.push_back(i);
  return places;
}

std::string repr(std::string_view text) {
  const char quote =
      text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos ? '"'
                                                                                            : '\'';
  std::string result(1, quote);
  for (std::size_t at = 0; at < text.size();) {
    const auto begin = at;
    const auto c = text::next_code_point(text, at);
    if (c == '\\' || c == static_cast<char32_t>(quote))
      result.append({'\\', static_cast<char>(c)});
    else if (c == '\n')
      result += "\\n";
    else if (c == '\r')
      result += "\\r";
    else if (c == '\t')
      result += "\\t";
    else if (!is_printable(c))
      result += escaped(c);
    else
      result += text.substr(begin, at - begin);
  }
  return result + quote;
}

std::string repr(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  auto text = fmt::format("{}", number);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

std::string json(std::string_view text, bool ascii) {
  std::string result = "\"";
  for (std::size_t at = 0; at < text.size();) {
    const auto begin = at;
    const auto c = static_cast<std::uint32_t>(text::next_code_point(text, at));
    if (c == '"' || c == '\\')
      result.append({'\\', static_cast<char>(c)});
    else if (c == '\n')
      result += "\\n";
    else if (c == '\r')
      result += "\\r";
    else if (c == '\t')
      result += "\\t";
    else if (c == '\b')
      result += "\\b";
    else if (c == '\f')
      result += "\\f";
    else if (c < 0x20 || (ascii && c >= 0x7F && c <= 0xFFFF))
      result += fmt::format("\\u{:04x}", c);
    else if (ascii && c > 0xFFFF)
      result += fmt::format("\\u{:04x}\\u{:04x}", 0xD7C0 + (c >> 10), 0xDC00 + (c & 0x3FF));
    else
      result += text.substr(begin, at - begin);
  }
  return result + '"';
}

}  // namespace attune::python
