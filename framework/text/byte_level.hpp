// GPT-2's byte-level alphabet: one printable character per byte, so that any text is a string over
// 256 characters (Radford et al. 2019, encoder.py, bytes_to_unicode).
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "text/aligned.hpp"

namespace attune::text {

/// Appends the character of each byte.
void append_byte_characters(std::string& text, std::string_view bytes);
/// Writes the character of each byte in a range of the old text.
void put_byte_characters(const AlignedText& old, Span stretch, Rewriting& result);
/// The bytes of these characters (well-formed UTF-8); absent if a character represents no byte.
std::optional<std::string> bytes_of_characters(std::string_view text);

}  // namespace attune::text
