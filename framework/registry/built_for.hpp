// Comparison of a plugin library's build facts with this Attune (attune/built_for.hpp).
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace attune::registry {

/// Differences between a library's note and this Attune, in words ("its compiler is clang++ 16,
/// here g++ 12"); empty if the library is compatible. A fact missing from the note is a difference;
/// unknown facts are ignored.
std::vector<std::string> mismatches(std::string_view note);

}  // namespace attune::registry
