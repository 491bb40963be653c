// Near matches for misspelled names.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace attune {

/// The name nearest to the given one, or "" when none is near (edit distance over a third of the length).
std::string nearest(std::string_view name, const std::vector<std::string>& names);
/// "; did you mean 'match'?" or "".
std::string did_you_mean(std::string_view name, const std::vector<std::string>& names);
/// "a, b, c"
std::string joined(const std::vector<std::string>& parts, std::string_view separator = ", ");

}  // namespace attune
