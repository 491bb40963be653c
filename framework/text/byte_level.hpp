// GPT-2's reversible alphabet: each byte has one printable character, so that any text is a string
// over 256 characters (Radford et al. 2019, encoder.py, bytes_to_unicode).
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "text/aligned.hpp"

namespace attune::text {

/// Appends the character of each byte.
void append_byte_characters(std::string& text, std::string_view bytes);
/// Puts the character of each byte of a stretch of the old text.
void put_byte_characters(const AlignedText& old, Span stretch, Rewriting& result);
/// The bytes that these characters (well-formed UTF-8) stand for; nothing when one stands for none.
std::optional<std::string> bytes_of_characters(std::string_view text);

}  // namespace attune::text
