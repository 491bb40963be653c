// Suggestions for misspelled names, and checks of names.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace attune {

/// The name nearest to the given one; "" if none is near (edit distance above a third of the
/// length).
std::string nearest(std::string_view name, const std::vector<std::string>& names);
/// "; did you mean 'match'?" or "".
std::string did_you_mean(std::string_view name, const std::vector<std::string>& names);
/// Natural order, in which digits compare as numbers: run-2 before run-10.
bool natural_less(std::string_view a, std::string_view b);
/// Whether a text has only letters, digits and _ / . - : a valid metric or scalar name.
bool is_key(const std::string& text);
/// Why a text is not a valid directory name, as in "'name' is empty: ..."; "" if it is valid.
std::string objection_to_name(const std::string& name);
/// The same for 'output', a folder of such directories.
std::string objection_to_folder(const std::string& output);
/// "a, b, c"
std::string joined(const std::vector<std::string>& parts, std::string_view separator = ", ");

}  // namespace attune
