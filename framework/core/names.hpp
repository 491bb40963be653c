// Near matches for misspelled names.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace attune {

/// The name nearest to the given one, or "" when none is near (edit distance over a third of the
/// length).
std::string nearest(std::string_view name, const std::vector<std::string>& names);
/// "; did you mean 'match'?" or "".
std::string did_you_mean(std::string_view name, const std::vector<std::string>& names);
/// The order of names in which their numbers count as numbers: run-2 before run-10.
bool natural_less(std::string_view a, std::string_view b);
/// Whether a text is of letters, digits and _ / . - alone: the name of a metric or scalar.
bool is_key(const std::string& text);
/// Why a text cannot be the name of a directory of ours, as in "'name' is empty: ..."; "" when it
/// can.
std::string objection_to_name(const std::string& name);
/// The same of 'output', a folder that holds such directories.
std::string objection_to_folder(const std::string& output);
/// "a, b, c"
std::string joined(const std::vector<std::string>& parts, std::string_view separator = ", ");

}  // namespace attune
