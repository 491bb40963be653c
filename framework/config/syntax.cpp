#include "config/syntax.hpp"

#include <attune/schema.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <regex>
#include <vector>

namespace attune::config {
namespace {

std::string trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(" \t\r") - first + 1));
}

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines(1);
  for (const char c : text)
    if (c == '\n')
      lines.emplace_back();
    else
      lines.back() += c;
  return lines;
}

std::string lowered(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

bool holds(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// Without a comment at its end.
std::string without_comment(const std::string& value) {
  const bool is_quoted = !value.empty() && (value[0] == '"' || value[0] == '\'');
  return is_quoted ? value : trimmed(std::string_view(value).substr(0, value.find('#')));
}

/// "key = value" as it stands in a line.
struct Pair {
  std::string key;
  std::string value;
};

bool read_pair(const std::string& line, Pair& pair) {
  static const std::regex form(R"(\s*([A-Za-z0-9_."'-]+)\s*=\s*(.*?)\s*)");
  std::smatch part;
  if (!std::regex_match(line, part, form)) return false;
  pair = {part[1], without_comment(part[2])};
  return true;
}

std::string about_numbers(const Pair& pair) {
  static const std::regex no_zero_before(R"(([+-]?)(\.\d+))");
  static const std::regex no_digit_behind(R"([+-]?\d+\.)");
  static const std::regex zeros(R"(([+-]?)0+(\d+))");
  std::smatch part;
  if (std::regex_match(pair.value, part, no_zero_before))
    return fmt::format("write {} = {}0{}", pair.key, part[1].str(), part[2].str());
  if (std::regex_match(pair.value, no_digit_behind))
    return fmt::format("write {} = {}0", pair.key, pair.value);
  if (std::regex_match(pair.value, part, zeros))
    return fmt::format("numbers have no leading zeros: write {} = {}{}", pair.key, part[1].str(),
                       part[2].str());
  return fmt::format("this is not a number; write a text in quotes: {} = {}", pair.key,
                     to_toml(OptionValue(pair.value)));
}

std::string about_quotes(const Pair& pair) {
  const char quote = pair.value[0];
  const auto inside = std::string_view(pair.value).substr(1);
  const bool is_closed = inside.ends_with(quote);
  if (quote == '"' && holds(inside, "\\"))
    return fmt::format(
        "a backslash in double quotes begins an escape: write the text in single quotes, {} = '{}'",
        pair.key, inside.substr(0, inside.size() - is_closed));
  if (quote == '\'' && std::count(pair.value.begin(), pair.value.end(), '\'') > 2)
    return fmt::format("write a text with an apostrophe in double quotes: {} = \"{}\"", pair.key,
                       inside.substr(0, inside.size() - is_closed));
  if (!is_closed && inside.find(quote) == std::string_view::npos)
    return "the quote at the end of the text is missing";
  return "only a comment (#) may follow a value";
}

std::string about_value(const Pair& pair) {
  const auto& value = pair.value;
  const auto word = lowered(value);
  if (value.empty()) return "the value is missing: write it after the =, or remove the line";
  if (word == "true" || word == "false") return fmt::format("write {} = {}", pair.key, word);
  if (word == "yes" || word == "no" || word == "on" || word == "off")
    return fmt::format("write {} = {}, or {} = \"{}\" when it is a text", pair.key,
                       word == "yes" || word == "on" ? "true" : "false", pair.key, value);
  if (word == "none" || word == "null" || word == "nil")
    return "TOML has no null: remove the line to use the default";
  for (const char* quote : {"“", "”", "„", "‘", "’", "«"})
    if (holds(value, quote)) return "these are a word processor's quotes: use plain ones, \" or '";
  if (value[0] == '=')
    return fmt::format("one = is enough: {} = {}", pair.key, trimmed(value.substr(1)));
  if (value.back() == ',' || value.back() == ';')
    return fmt::format("a value ends with its line: remove the '{}'", value.back());
  if (value[0] == '"' || value[0] == '\'') return about_quotes(pair);
  if (value[0] == '[' || value[0] == '{') return "";
  if (std::isdigit(static_cast<unsigned char>(value[0])) ||
      std::string_view("+-.").find(value[0]) != std::string_view::npos)
    return about_numbers(pair);
  return fmt::format("write a text in quotes: {} = {}", pair.key, to_toml(OptionValue(value)));
}

/// The line before this one that sets the same key; 0 when there is none.
std::size_t earlier(const std::vector<std::string>& lines, std::size_t line,
                    const std::string& key) {
  for (auto at = line - 1; at-- > 0;) {
    Pair pair;
    if (read_pair(lines[at], pair) && pair.key == key) return at + 1;
  }
  return 0;
}

std::string about_twice(const std::vector<std::string>& lines, std::uint32_t line,
                        std::string_view says) {
  if (holds(says, "array") && !holds(says, "key-value"))
    return "every table of a list is written as [[name]], with two pairs of brackets";
  if (holds(says, "table header"))
    return "a section may appear only once: put all of its keys below one header";
  Pair pair;
  if (!read_pair(lines[line - 1], pair)) return "a key may appear only once: keep one of the two";
  const auto first = earlier(lines, line, pair.key);
  return first > 0
             ? fmt::format("'{}' is already set in line {}: keep one of them", pair.key, first)
             : fmt::format("'{}' is set twice: keep one of them", pair.key);
}

/// The line with the list that is still open in this one; 0 when there is none.
std::size_t open_list(const std::vector<std::string>& lines, std::uint32_t line) {
  std::ptrdiff_t open = 0;
  for (std::size_t at = line - 1; at-- > 0;) {
    const auto& text = lines[at];
    open += std::count(text.begin(), text.end(), '[') - std::count(text.begin(), text.end(), ']');
    Pair pair;
    if (read_pair(text, pair)) return pair.value.starts_with("[") && open > 0 ? at + 1 : 0;
    if (trimmed(text).starts_with("[")) return 0;
  }
  return 0;
}

std::string about_line(const std::vector<std::string>& lines, std::uint32_t line,
                       std::string_view says) {
  const auto text = trimmed(lines[line - 1]);
  static const std::regex yaml(R"([A-Za-z0-9_-]+\s*:.*)");
  if (const auto first = open_list(lines, line); first > 0 && !holds(says, "parsing array"))
    return fmt::format("the list that begins in line {} is not closed with ]", first);
  if (holds(says, "redefine")) return about_twice(lines, line, says);
  if (text.starts_with("//") || text.starts_with(";") || text.starts_with("--"))
    return "comments begin with #";
  if (text.starts_with("{"))
    return "this looks like JSON: write TOML, key = value in lines below [section]";
  if (text.starts_with("- ") || std::regex_match(text, yaml))
    return "this looks like YAML: write key = value";
  if (holds(says, "table header"))
    return "write a section's name in brackets, alone on its line: [train]";
  if (holds(says, "parsing array"))
    return "write the elements of a list in [ ], separated by commas";
  if (holds(says, "inline table"))
    return "write a table in { } on one line, with its keys separated by commas";
  Pair pair;
  if (!read_pair(lines[line - 1], pair)) return "write key = value, or [section]";
  static const std::regex whole(R"(0|[1-9]\d*|\d+\.\d+|true|false|"[^"\\]*"|'[^']*')");
  if (std::regex_match(pair.value, whole))
    return "is a bracket or a quote in a line above not closed?";
  return about_value(pair);
}

}  // namespace

std::string syntax_advice(std::string_view text, std::uint32_t line, std::string_view says) {
  std::string advice;
  const auto lines = lines_of(text);
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF"))
    advice = "the file is UTF-16: save it as UTF-8";
  else if (holds(says, "utf-8"))
    advice = "the file is not UTF-8: save it as UTF-8";
  else if (line >= 1 && line <= lines.size())
    advice = about_line(lines, line, says);
  return advice.empty() ? "" : "; " + advice;
}

}  // namespace attune::config
