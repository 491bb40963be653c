// UTF-8, Unicode properties and normal forms, based on ICU.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "text/aligned.hpp"

namespace attune::text {

bool is_ascii(std::string_view text);

/// Replaces each ill-formed sequence (its longest valid prefix, as recommended in Unicode chapter
/// 3.9) by U+FFFD.
std::string valid_utf8(std::string_view text);
/// Whether valid_utf8() would leave the text unchanged.
bool is_valid_utf8(std::string_view text);
/// valid_utf8() with tracked origins: for each byte, the range in `text` of its character.
AlignedText aligned_valid_utf8(std::string_view text);

/// The code point at `at`; advances `at`. The text must be well formed, here and in all functions
/// below.
char32_t next_code_point(std::string_view text, std::size_t& at);
/// The code point before `at`; moves `at` to its start.
char32_t previous_code_point(std::string_view text, std::size_t& at);
/// The position `count` characters after or before `at`, limited to the text, which need not be
/// well formed.
std::size_t forward(std::string_view text, std::size_t at, std::size_t count);
std::size_t backward(std::string_view text, std::size_t at, std::size_t count);
std::size_t count_code_points(std::string_view text);
void append(std::string& text, char32_t c);

/// Uses Unicode 9 data, as `tokenizers` does; newer characters are unchanged.
enum class NormalForm { nfc, nfd, nfkc, nfkd };
std::string normal_form(std::string_view text, NormalForm form);

/// The changes by code point, in the order of `tokenizers`.
std::vector<Change> normal_form_changes(std::string_view text, NormalForm form);

/// Case mapping without context: capital sigma never becomes final sigma. U+0130 maps to its first
/// code point only.
char32_t lowercase(char32_t c);

/// The end of leading white space, and the start of trailing white space.
std::size_t leading_whitespace(std::string_view text);
std::size_t trailing_whitespace(std::string_view text);

bool is_whitespace(char32_t c);    // property White_Space
bool is_numeric(char32_t c);       // categories Nd, Nl, No
bool is_ascii_symbol(char32_t c);  // printable ASCII except letters, digits and space
bool is_word(char32_t c);          // \w in UTS #18
                                   // Unicode 8 data, as in `tokenizers`; marks use Unicode 9 data.
bool is_punctuation(char32_t c);   // categories P*
bool is_nonspacing_mark(char32_t c);  // category Mn
bool is_other(char32_t c);            // categories Cc, Cf, Cs, Co
bool is_mark(char32_t c);             // categories M*

/// The script of a code point, with Japanese syllables counted as Han (as in SentencePiece);
/// `any_script` for the space and characters newer than Unicode 9. Uses current data: a few
/// characters (U+0589) have changed their script since the data of `tokenizers`.
int script_of(char32_t c);
inline constexpr int any_script = -1;

}  // namespace attune::text
