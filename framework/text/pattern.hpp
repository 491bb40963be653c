// Regular expressions as tokenizer.json writes them (Oniguruma's Ruby syntax, Unicode classes), run by PCRE2.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace attune::text {

/// A stretch of a text, in bytes.
struct Span {
  std::size_t begin, end;
};

/// Compiled once; threads may share it.
class Pattern {
 public:
  /// Error when the expression does not compile; it says where.
  explicit Pattern(std::string_view expression);
  /// Appends the matches in `text` (well-formed UTF-8), from left to right, none overlapping, none empty.
  void find_all(std::string_view text, std::vector<Span>& matches) const;

 private:
  std::string expression_;
  std::shared_ptr<const void> code_;
};

/// The expression that matches this text alone.
std::string escaped(std::string_view literal);

}  // namespace attune::text
