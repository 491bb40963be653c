// Regular expressions of tokenizer.json (Oniguruma's Ruby syntax, Unicode classes), executed by
// PCRE2.
#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "attune/tokenizer.hpp"

namespace attune::text {

/// A compiled pattern. Thread-safe.
class Pattern {
 public:
  /// Error if the expression does not compile; it states the position.
  explicit Pattern(std::string_view expression);
  /// Appends all non-empty, non-overlapping matches in `text` (well-formed UTF-8), from left to
  /// right.
  void find_all(std::string_view text, std::vector<Span>& matches) const;

 private:
  std::string expression_;
  std::shared_ptr<const void> code_;
};

/// "pattern" of a part: {"Regex": expression} or {"String": text}.
Pattern make_pattern(const nlohmann::json& json);

}  // namespace attune::text
