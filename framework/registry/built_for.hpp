// What a plugin library was built for, beside what this Attune is (attune/built_for.hpp).
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace attune::registry {

/// What differs between the text of a library's note and this Attune, in words ("its compiler is
/// clang++ 16, here g++ 12"); empty when the library fits. A fact that the note lacks differs; one
/// that this Attune does not know is passed over.
std::vector<std::string> mismatches(std::string_view note);

}  // namespace attune::registry
