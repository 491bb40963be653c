#include "text/byte_level.hpp"

#include <array>
#include <cstdint>

#include "text/unicode.hpp"

namespace attune::text {
namespace {

bool stands_for_itself(unsigned byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<std::string, 256> characters;
  std::array<std::int16_t, 0x144> bytes;  // by code point; -1: none

  Alphabet() {
    bytes.fill(-1);
    char32_t next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const char32_t c = stands_for_itself(byte) ? byte : next++;
      append(characters[byte], c);
      bytes[c] = static_cast<std::int16_t>(byte);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet alphabet;
  return alphabet;
}

}  // namespace

void append_byte_characters(std::string& text, std::string_view bytes) {
  const auto& characters = alphabet().characters;
  for (const char byte : bytes) text += characters[static_cast<unsigned char>(byte)];
}

void put_byte_characters(const AlignedText& old, Span stretch, Rewriting& result) {
  const auto& characters = alphabet().characters;
  for (auto at = stretch.begin; at < stretch.end; ++at)
    result.put(characters[static_cast<unsigned char>(old.bytes()[at])], at);
}

std::optional<std::string> bytes_of_characters(std::string_view text) {
  const auto& table = alphabet().bytes;
  std::string bytes;
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    if (c >= table.size() || table[c] < 0) return std::nullopt;
    bytes += static_cast<char>(table[c]);
  }
  return bytes;
}

}  // namespace attune::text
