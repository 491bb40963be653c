#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/python_pattern.hpp"

#include <pcre2.h>

#include "attune/error.hpp"

namespace attune::text {
namespace {

using MatchData = std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)>;

/// Null without a match.
MatchData match(const void* code, std::string_view text, const std::string& what) {
  const auto* compiled = static_cast<const pcre2_code*>(code);
  MatchData data(pcre2_match_data_create_from_pattern(compiled, nullptr), pcre2_match_data_free);
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const int result =
      pcre2_match(compiled, subject, text.size(), 0, PCRE2_ANCHORED, data.get(), nullptr);
  if (result < 0 && result != PCRE2_ERROR_NOMATCH)
    fail("{}: the expression cannot be matched against '{}'", what, text);
  if (result < 0) data.reset();
  return data;
}

}  // namespace

PythonPattern::PythonPattern(const std::string& expression, const std::string& what) : what_(what) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                             PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  if (!code) {
    PCRE2_UCHAR reason[256];
    pcre2_get_error_message(error, reason, sizeof reason);
    fail("{}: the regular expression '{}' does not compile: {}", what_, expression,
         reinterpret_cast<const char*>(reason));
  }
  code_.reset(code, [](pcre2_code* compiled) { pcre2_code_free(compiled); });
}

bool PythonPattern::matches(std::string_view text) const {
  return match(code_.get(), text, what_) != nullptr;
}

std::optional<std::string> PythonPattern::group(std::string_view text,
                                                const std::string& name) const {
  const auto data = match(code_.get(), text, what_);
  if (!data) return std::nullopt;
  PCRE2_UCHAR* found = nullptr;
  PCRE2_SIZE size = 0;
  const auto* key = reinterpret_cast<PCRE2_SPTR>(name.c_str());
  if (pcre2_substring_get_byname(data.get(), key, &found, &size) != 0) return std::nullopt;
  std::string result(reinterpret_cast<const char*>(found), size);
  pcre2_substring_free(found);
  return result;
}

}  // namespace attune::text
