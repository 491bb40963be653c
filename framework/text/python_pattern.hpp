// Regular expressions as Python's re writes them, run by PCRE2, whose syntax holds nearly all of
// it.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace attune::text {

class PythonPattern {
 public:
  /// Error when the expression does not compile. `what` names it in the message:
  /// "adapter_config.json: rank_pattern".
  PythonPattern(const std::string& expression, const std::string& what);
  /// As re.match: from the beginning of the text, not necessarily to its end.
  bool matches(std::string_view text) const;
  /// What the group of this name holds after such a match; absent without a match, or when the
  /// group took no part in it.
  std::optional<std::string> group(std::string_view text, const std::string& name) const;

 private:
  std::string what_;
  std::shared_ptr<const void> code_;
};

}  // namespace attune::text
