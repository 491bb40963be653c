// GPT-2's reversible alphabet: each byte has one printable character, so that any text is a string over 256 characters
// (Radford et al. 2019, encoder.py, bytes_to_unicode).
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace attune::text {

/// Appends the character of each byte.
void append_byte_characters(std::string& text, std::string_view bytes);
/// The bytes that these characters (well-formed UTF-8) stand for; nothing when one stands for none.
std::optional<std::string> bytes_of_characters(std::string_view text);

}  // namespace attune::text
