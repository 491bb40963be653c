#include "prepare/privacy.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <cctype>
#include <ranges>

#include "prepare/texts.hpp"
#include "text/pattern.hpp"

namespace attune {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string digits_of(std::string_view text) {
  std::string digits;
  std::copy_if(text.begin(), text.end(), std::back_inserter(digits), is_digit);
  return digits;
}

/// ISO/IEC 7812-1, annex B: from the right, every second digit counts double, by its own sum of
/// digits.
bool passes_luhn(const std::string& digits) {
  int sum = 0;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    int digit = digits[digits.size() - 1 - i] - '0';
    if (i % 2 == 1) digit = digit > 4 ? digit * 2 - 9 : digit * 2;
    sum += digit;
  }
  return sum % 10 == 0;
}

bool is_card(std::string_view text) {
  const auto digits = digits_of(text);
  return digits.front() >= '2' && digits.front() <= '6' && passes_luhn(digits);
}

bool is_ipv6(std::string_view text) {
  in6_addr address{};
  return std::any_of(text.begin(), text.end(), is_digit) &&
         inet_pton(AF_INET6, std::string(text).c_str(), &address) == 1;
}

bool is_ip(std::string_view text) {
  return text.find(':') == std::string_view::npos || is_ipv6(text);
}

bool is_phone(std::string_view text) {
  const auto digits = digits_of(text).size();
  return digits >= 7 && digits <= 15;
}

bool always(std::string_view) { return true; }

struct Mask {
  std::string kind;
  std::string name;
  text::Pattern pattern;
  bool (*is_one)(std::string_view);
};

/// In the order they are looked for: a card number must not be taken for a telephone's.
const std::vector<Mask>& masks() {
  static const std::string byte = "(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])";
  static const std::vector<Mask> all{
      {"email", "[EMAIL]", text::Pattern("[\\p{L}\\p{N}._%+-]+@(?:[\\p{L}\\p{N}-]+\\.)+\\p{L}{2,}"),
       always},
      {"card", "[CARD]", text::Pattern("(?<![0-9])[0-9](?:[ -]?[0-9]){12,18}(?![0-9])"), is_card},
      {"ip", "[IP]",
       text::Pattern(
           "(?<![0-9.])(?:" + byte + "\\.){3}" + byte +
           "(?!\\.?[0-9])|(?<![\\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\\w:])"),
       is_ip},
      {"phone", "[PHONE]",
       text::Pattern("(?<![\\w+])(?:"
                     "\\+[0-9]{1,3}(?:[ .-]?\\(?[0-9]{1,4}\\)?){2,6}"             // +49 30 1234567
                     "|\\([0-9]{2,5}\\)[ .-]?[0-9]{2,8}(?:[ .-][0-9]{2,8}){0,3}"  // (030) 1234567
                     "|[0-9]{3}[ .-][0-9]{3}[ .-][0-9]{4}"                        // 555-123-4567
                     "|0[0-9]{1,5}[ /-][0-9]{2,8}(?:[ -][0-9]{2,8}){0,3}"         // 030 1234567
                     ")(?!\\w)"),
       is_phone}};
  return all;
}

std::int64_t mask(const Mask& mask, std::string& text) {
  std::vector<Span> found;
  mask.pattern.find_all(text, found);
  std::erase_if(found, [&](const auto& span) {
    return !mask.is_one(std::string_view(text).substr(span.begin, span.end - span.begin));
  });
  for (const auto& span : std::views::reverse(found))
    text.replace(span.begin, span.end - span.begin, mask.name);
  return std::ssize(found);
}

}  // namespace

std::vector<std::string> mask_kinds() { return {"email", "phone", "card", "ip"}; }

void mask_personal_data(const std::vector<std::string>& kinds, Record& record, Ledger& ledger) {
  for (const auto& one : masks()) {
    if (std::find(kinds.begin(), kinds.end(), one.kind) == kinds.end()) continue;
    std::int64_t count = 0;
    for_each_text(record, [&](std::string& text) { count += mask(one, text); });
    if (count > 0) ledger.change(one.name + " put in its place", place_of(record), count);
  }
}

}  // namespace attune
