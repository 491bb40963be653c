// Tokenizes a Jinja template with transformers' settings: trim_blocks, lstrip_blocks.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace attune::jinja {

struct Token {
  enum class Type {
    text,
    open_expression,
    close_expression,
    open_tag,
    close_tag,
    name,
    string,
    whole,
    number,
    sign,
    end
  };
  Type type = Type::end;
  std::string text;  // source text; for a string its value
  std::int64_t line = 0;
};

/// Error that names the line for a syntax error.
std::vector<Token> tokens_of(std::string_view source);

}  // namespace attune::jinja
