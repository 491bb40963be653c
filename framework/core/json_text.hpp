// Deviations from JSON that occur in practice.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace attune {

/// Replaces escaped lone surrogates ("\ud83d" without its second half) by U+FFFD, and returns their
/// number.
std::int64_t replace_lone_surrogates(std::string& json);

/// "NaN", "Infinity" or "-Infinity" if a parser failed on it after reading `bytes` bytes; otherwise
/// "".
std::string_view non_number_at(std::string_view json, std::size_t bytes);

/// The first integer in a JSON text that exceeds 64 bits, which parsers round; "" if there is none.
std::string_view number_beyond_64_bits(std::string_view json);

}  // namespace attune
