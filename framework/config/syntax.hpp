// What is wrong with a line that is not TOML, and what to write instead.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace attune::config {

/// "; texts stand in quotes: plugin = \"lora\"", from the file's text, the line of the mistake
/// (from 1) and what the parser says; "" when no advice fits.
std::string syntax_advice(std::string_view text, std::uint32_t line, std::string_view says);

}  // namespace attune::config
