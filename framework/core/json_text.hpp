// What JSON texts in use hold beside JSON.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace attune {

/// Replaces escaped halves of surrogate pairs ("\ud83d" without its second half) by U+FFFD, and
/// returns how many there were.
std::int64_t replace_lone_surrogates(std::string& json);

/// "NaN", "Infinity" or "-Infinity" when that is what a parser stumbled over, having read `bytes`
/// bytes; "": it is not.
std::string_view non_number_at(std::string_view json, std::size_t bytes);

/// The first whole number of a JSON text that 64 bits cannot hold, which parsers round; "": there
/// is none.
std::string_view number_beyond_64_bits(std::string_view json);

}  // namespace attune
