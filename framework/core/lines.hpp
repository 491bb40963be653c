// Texts in pieces.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace attune {

/// The pieces of a text between separators, empty ones too.
std::vector<std::string> pieces_of(std::string_view text, char separator);
/// Its lines, without empty ones.
std::vector<std::string> lines_of(std::string_view text);

}  // namespace attune
