#include "core/out_of_memory.hpp"

#include <algorithm>
#include <array>
#include <new>
#include <string_view>

namespace attune {

bool is_out_of_memory(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error)) return true;
  constexpr std::array<std::string_view, 3> words{"out of memory", "can't allocate memory",
                                                  "not enough memory"};
  const std::string_view text = error.what();
  return std::ranges::any_of(
      words, [&](std::string_view word) { return text.find(word) != std::string_view::npos; });
}

}  // namespace attune
