// Advice for TOML syntax errors.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace attune::config {

/// Advice such as "; texts stand in quotes: plugin = \"lora\"", from the file's text, the line of
/// the error (from 1) and the parser's message; "" if no advice applies.
std::string syntax_advice(std::string_view text, std::uint32_t line, std::string_view says);

}  // namespace attune::config
