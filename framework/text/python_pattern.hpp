// Regular expressions in the syntax of Python's re, executed by PCRE2, which supports nearly all of
// it.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace attune::text {

class PythonPattern {
 public:
  /// Error if the expression does not compile. `what` names it in the message:
  /// "adapter_config.json: rank_pattern".
  PythonPattern(const std::string& expression, const std::string& what);
  /// As re.match: anchored at the start of the text, not at its end.
  bool matches(std::string_view text) const;
  /// Content of the named group in such a match; absent without a match, or if the group did not
  /// participate.
  std::optional<std::string> group(std::string_view text, const std::string& name) const;

 private:
  std::string what_;
  std::shared_ptr<const void> code_;
};

}  // namespace attune::text
