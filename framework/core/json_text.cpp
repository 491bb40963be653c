#include "core/json_text.hpp"

#include <charconv>
#include <optional>

namespace attune {
namespace {

constexpr std::size_t escape_bytes = 6;  // \u0041

/// The code unit of the escape \uXXXX that begins here.
std::optional<unsigned> code_unit(std::string_view text) {
  if (text.size() < escape_bytes || !text.starts_with("\\u")) return std::nullopt;
  unsigned unit = 0;
  const auto* end = text.data() + escape_bytes;
  const auto [last, error] = std::from_chars(text.data() + 2, end, unit, 16);
  return error == std::errc() && last == end ? std::optional(unit) : std::nullopt;
}

bool is_high(unsigned unit) { return unit >= 0xd800 && unit < 0xdc00; }
bool is_part_of_number(char c) {
  return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E';
}
bool is_low(unsigned unit) { return unit >= 0xdc00 && unit < 0xe000; }

}  // namespace

std::int64_t replace_lone_surrogates(std::string& json) {
  std::int64_t count = 0;
  for (std::size_t at = 0; (at = json.find('\\', at)) != std::string::npos;) {
    const auto rest = std::string_view(json).substr(at);
    const auto unit = code_unit(rest);
    if (!unit) {
      at += 2;  // the escaped character may be a backslash
      continue;
    }
    const auto next = is_high(*unit) ? code_unit(rest.substr(escape_bytes)) : std::nullopt;
    const bool pair = next && is_low(*next);
    if (!pair && (is_high(*unit) || is_low(*unit))) {
      json.replace(at, escape_bytes, "\\ufffd");
      ++count;
    }
    at += pair ? 2 * escape_bytes : escape_bytes;
  }
  return count;
}

std::string_view number_beyond_64_bits(std::string_view json) {
  constexpr std::size_t most_digits = 18;  // of which 64 bits hold every number
  const auto fits = [](std::string_view digits, auto value) {
    return std::from_chars(digits.data(), digits.data() + digits.size(), value).ec == std::errc();
  };
  bool in_string = false;
  for (std::size_t at = 0; at < json.size(); ++at) {
    if (json[at] == '"') in_string = !in_string;
    if (in_string && json[at] == '\\') ++at;
    if (in_string || !is_part_of_number(json[at])) continue;
    const auto begin = at;
    while (at < json.size() && is_part_of_number(json[at])) ++at;
    const auto number = json.substr(begin, at-- - begin);
    const bool whole = number.find_first_of(".eE+") == std::string_view::npos;
    if (whole && number.size() > most_digits && !fits(number, std::int64_t()) &&
        !fits(number, std::uint64_t()))
      return number;
  }
  return {};
}

std::string_view non_number_at(std::string_view json, std::size_t bytes) {
  if (bytes == 0 || bytes > json.size()) return {};
  for (const std::string_view word : {"NaN", "-Infinity", "Infinity"}) {
    const std::size_t sign = word.starts_with('-');  // the parser stops behind it
    if (bytes > sign && json.substr(bytes - 1 - sign).starts_with(word)) return word;
  }
  return {};
}

}  // namespace attune
