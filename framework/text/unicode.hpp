// UTF-8, Unicode properties and normal forms, by ICU.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace attune::text {

bool is_ascii(std::string_view text);

/// Each ill-formed sequence (its longest valid prefix, as Unicode recommends in chapter 3.9) becomes U+FFFD.
std::string valid_utf8(std::string_view text);

/// The code point at `at`, which moves past it. The text must be well formed, here and in all functions below.
char32_t next_code_point(std::string_view text, std::size_t& at);
/// The code point before `at`, which moves to its start.
char32_t previous_code_point(std::string_view text, std::size_t& at);
std::size_t count_code_points(std::string_view text);
void append(std::string& text, char32_t c);

enum class NormalForm { nfc, nfd, nfkc, nfkd };
std::string normal_form(std::string_view text, NormalForm form);

/// Full case mapping without context: a capital sigma is never final.
std::string lowercase(std::string_view text);

bool is_whitespace(char32_t c);       // property White_Space
bool is_numeric(char32_t c);          // categories Nd, Nl, No
bool is_punctuation(char32_t c);      // categories P*
bool is_ascii_symbol(char32_t c);      // printable ASCII but letters, digits and the space
bool is_nonspacing_mark(char32_t c);  // category Mn
bool is_other(char32_t c);            // categories Cc, Cf, Cs, Co
bool is_word(char32_t c);             // what \w matches in UTS #18

}  // namespace attune::text
