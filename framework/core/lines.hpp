// Splitting of texts.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace attune {

/// The parts of a text between separators, including empty ones.
std::vector<std::string> pieces_of(std::string_view text, char separator);
/// The lines of a text, without empty ones.
std::vector<std::string> lines_of(std::string_view text);

}  // namespace attune
