// Regular expressions as tokenizer.json writes them (Oniguruma's Ruby syntax, Unicode classes), run
// by PCRE2.
#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "attune/tokenizer.hpp"

namespace attune::text {

/// Compiled once; threads may share it.
class Pattern {
 public:
  /// Error when the expression does not compile; it says where.
  explicit Pattern(std::string_view expression);
  /// Appends the matches in `text` (well-formed UTF-8), from left to right, none overlapping, none
  /// empty.
  void find_all(std::string_view text, std::vector<Span>& matches) const;

 private:
  std::string expression_;
  std::shared_ptr<const void> code_;
};

/// "pattern" of a part: {"Regex": expression} or {"String": text}.
Pattern make_pattern(const nlohmann::json& json);

}  // namespace attune::text
