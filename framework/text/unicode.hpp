// UTF-8, Unicode properties and normal forms, by ICU.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "text/aligned.hpp"

namespace attune::text {

bool is_ascii(std::string_view text);

/// Each ill-formed sequence (its longest valid prefix, as Unicode recommends in chapter 3.9)
/// becomes U+FFFD.
std::string valid_utf8(std::string_view text);
/// Whether U+FFFD would be put nowhere.
bool is_valid_utf8(std::string_view text);
/// The text with that done, and for each byte the bytes of `text` that its character stands for.
AlignedText aligned_valid_utf8(std::string_view text);

/// The code point at `at`, which moves past it. The text must be well formed, here and in all
/// functions below.
char32_t next_code_point(std::string_view text, std::size_t& at);
/// The code point before `at`, which moves to its start.
char32_t previous_code_point(std::string_view text, std::size_t& at);
/// The place `count` characters after or before `at`, within the text, which need not be well
/// formed.
std::size_t forward(std::string_view text, std::size_t at, std::size_t count);
std::size_t backward(std::string_view text, std::size_t at, std::size_t count);
std::size_t count_code_points(std::string_view text);
void append(std::string& text, char32_t c);

/// By the data of Unicode 9, as `tokenizers` has it: what is newer stays as it is.
enum class NormalForm { nfc, nfd, nfkc, nfkd };
std::string normal_form(std::string_view text, NormalForm form);

/// The same, code point by code point, in the order in which `tokenizers` accounts for them.
std::vector<Change> normal_form_changes(std::string_view text, NormalForm form);

/// Case mapping without context: a capital sigma is never final. U+0130 gives its first code point
/// alone.
char32_t lowercase(char32_t c);

/// Where the white space that begins the text ends, and where that which ends it begins.
std::size_t leading_whitespace(std::string_view text);
std::size_t trailing_whitespace(std::string_view text);

bool is_whitespace(char32_t c);    // property White_Space
bool is_numeric(char32_t c);       // categories Nd, Nl, No
bool is_ascii_symbol(char32_t c);  // printable ASCII but letters, digits and the space
bool is_word(char32_t c);          // what \w matches in UTS #18
// As `tokenizers` has them, by the data of Unicode 8; marks by that of Unicode 9.
bool is_punctuation(char32_t c);      // categories P*
bool is_nonspacing_mark(char32_t c);  // category Mn
bool is_other(char32_t c);            // categories Cc, Cf, Cs, Co
bool is_mark(char32_t c);             // categories M*

/// The script of a code point, Japanese syllables counted as Han (as SentencePiece does);
/// `any_script` for the space and what is newer than Unicode 9. By today's data: a few characters
/// (U+0589) have changed their script since `tokenizers` took its own.
int script_of(char32_t c);
inline constexpr int any_script = -1;

}  // namespace attune::text
