#include "core/lines.hpp"

namespace attune {

std::vector<std::string> pieces_of(std::string_view text, char separator) {
  std::vector<std::string> pieces(1);
  for (const char c : text)
    if (c == separator)
      pieces.emplace_back();
    else
      pieces.back() += c;
  return pieces;
}

std::vector<std::string> lines_of(std::string_view text) {
  auto lines = pieces_of(text, '\n');
  std::erase(lines, "");
  return lines;
}

}  // namespace attune
