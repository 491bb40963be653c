// Python's str methods on UTF-8. Texts must be well formed; positions and lengths count code
// points.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace attune::python {

enum class Ends { both, left, right };

/// Python's definition of white space, which includes the four ASCII separators.
bool is_space(char32_t c);
std::string_view stripped(std::string_view text, Ends ends = Ends::both);
std::string_view stripped(std::string_view text, std::string_view characters, Ends ends);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalized(std::string_view text);
std::string titled(std::string_view text);
bool is_upper(std::string_view text);
bool is_lower(std::string_view text);

using Texts = std::vector<std::string>;
/// Splits at runs of white space, or at a separator, at most `limit` times if it is not negative.
Texts split(std::string_view text, std::int64_t limit);
Texts split(std::string_view text, std::string_view separator, std::int64_t limit);
Texts split_from_right(std::string_view text, std::string_view separator, std::int64_t limit);
Texts lines(std::string_view text);

std::string replaced(std::string_view text, std::string_view from, std::string_view to,
                     std::int64_t limit);
std::int64_t length(std::string_view text);
Texts characters(std::string_view text);

/// The indices that text[start:stop:step] selects.
std::vector<std::int64_t> slice(std::int64_t size, std::optional<std::int64_t> start,
                                std::optional<std::int64_t> stop, std::int64_t step);

/// repr() of a text and of a number, and json.dumps() of a text.
std::string repr(std::string_view text);
std::string repr(double number);
std::string json(std::string_view text, bool ascii);

}  // namespace attune::python
