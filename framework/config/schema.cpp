#include <attune/schema.hpp>
#include <fmt/format.h>

#include "core/names.hpp"

namespace attune {
namespace {

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (c == '\n')
      result += "\\n";
    else if (c == '\t')
      result += "\\t";
    else if (static_cast<unsigned char>(c) < 0x20)
      result += fmt::format("\\u{:04X}", static_cast<int>(c));
    else
      result += c;
  }
  return result + '"';
}

struct TypeName {
  std::string operator()(bool) const { return "boolean"; }
  std::string operator()(std::int64_t) const { return "integer"; }
  std::string operator()(double) const { return "number"; }
  std::string operator()(const std::string&) const { return "text"; }
  std::string operator()(const std::vector<std::string>&) const { return "list of texts"; }
  std::string operator()(const std::vector<std::int64_t>&) const { return "list of integers"; }
  std::string operator()(const OptionMap&) const { return "table of texts"; }
  std::string operator()(const NumberMap&) const { return "table of numbers"; }
};

struct TomlText {
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(std::int64_t value) const { return fmt::format("{}", value); }
  std::string operator()(double value) const {
    auto text = fmt::format("{}", value);
    // a TOML number with a point stays a number
    return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
  }
  std::string operator()(const std::string& value) const { return quoted(value); }
  std::string operator()(const std::vector<std::string>& values) const {
    std::vector<std::string> parts;
    for (const auto& value : values) parts.push_back(quoted(value));
    return "[" + joined(parts) + "]";
  }
  std::string operator()(const std::vector<std::int64_t>& values) const {
    std::vector<std::string> parts;
    for (const auto value : values) parts.push_back(fmt::format("{}", value));
    return "[" + joined(parts) + "]";
  }
  std::string operator()(const OptionMap& map) const {
    std::vector<std::string> parts;
    for (const auto& [key, value] : map) parts.push_back(quoted(key) + " = " + quoted(value));
    return inline_table(parts);
  }
  std::string operator()(const NumberMap& map) const {
    std::vector<std::string> parts;
    for (const auto& [key, value] : map) parts.push_back(quoted(key) + " = " + (*this)(value));
    return inline_table(parts);
  }

 private:
  static std::string inline_table(const std::vector<std::string>& parts) {
    return parts.empty() ? "{}" : "{ " + joined(parts) + " }";
  }
};

}  // namespace

std::string type_name(const OptionValue& value) { return std::visit(TypeName{}, value); }
std::string to_toml(const OptionValue& value) { return std::visit(TomlText{}, value); }

std::string to_toml(const Option& option, const OptionValue& value) {
  for (const auto& [word, number] : option.words)
    if (value == OptionValue(number)) return quoted(word);
  return to_toml(value);
}

}  // namespace attune
