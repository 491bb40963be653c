#include <algorithm>
#include <attune/dataset.hpp>
#include <attune/error.hpp>
#include <nlohmann/json.hpp>

#include "core/names.hpp"

namespace attune {
namespace {

/// Rows of conversations and pairs have other keys than a record's fields: a layout fills these
/// from them.
std::string layout_for(const std::string& field) {
  if (field == "chosen" || field == "rejected") return ", or set layout = \"preference\"";
  if (field != "prompt" && field != "response") return "";
  return ", or, for conversations, set layout = \"messages\" (or \"alpaca\", "
         "\"prompt_completion\")";
}

[[noreturn]] void fail_absent(const Record& record, const std::string& name) {
  std::vector<std::string> names;
  for (const auto& [key, value] : record.fields) names.push_back(key);
  for (const auto& [key, value] : record.lists) names.push_back(key);
  std::ranges::sort(names);
  throw BadRow("a field is missing",
               fmt::format("{}, row {}: there is no field '{}' (existing fields: {}); map it with "
                           "fields = {{ {} = \"...\" }} in the source{}",
                           record.source, record.row, name, names.empty() ? "none" : joined(names),
                           name, layout_for(name)));
}

std::string trimmed(const std::string& text) {
  constexpr const char* white = " \t\r\n\v\f";
  const auto first = text.find_first_not_of(white);
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(white) - first + 1);
}

std::vector<std::string> parts_of(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  const auto add = [&](const std::string& part) {
    if (auto found = trimmed(part); !found.empty()) parts.push_back(std::move(found));
  };
  ATTUNE_ASSERT(!separator.empty(), "no separator");
  const bool at_white_space = separator == " ";
  for (std::size_t begin = 0; begin <= text.size();) {
    const auto next =
        at_white_space ? text.find_first_of(" \t\r\n\v\f", begin) : text.find(separator, begin);
    const auto end = std::min(next, text.size());
    add(text.substr(begin, end - begin));
    begin = end + separator.size();
  }
  return parts;
}

std::vector<std::string> elements_of(const Record& record, const std::string& name,
                                     const std::string& text) {
  const auto list = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto is_plain = [](const nlohmann::json& value) {
    return value.is_string() || value.is_number() || value.is_boolean();
  };
  if (!list.is_array() || !std::ranges::all_of(list, is_plain))
    throw BadRow("a list that cannot be read",
                 fmt::format("{}, row {}: {} begins like a JSON list, but is not a list of texts, "
                             "numbers or booleans: {}",
                             record.source, record.row, name, text));
  std::vector<std::string> elements;
  for (const auto& one : list)
    elements.push_back(one.is_string() ? one.get<std::string>() : one.dump());
  return elements;
}

}  // namespace

const std::string& Record::field(const std::string& name) const {
  const auto found = fields.find(name);
  if (found != fields.end()) return found->second;
  if (lists.contains(name))
    throw BadRow("a list instead of a text",
                 fmt::format("{}, row {}: the field '{}' is a list and should be a text, a number "
                             "or a boolean; correct fields or layout in the recipe",
                             source, row, name));
  fail_absent(*this, name);
}

std::vector<std::string> Record::list(const std::string& name, const std::string& separator) const {
  if (const auto found = lists.find(name); found != lists.end()) return found->second;
  const auto text = fields.find(name);
  if (text == fields.end()) fail_absent(*this, name);
  return text->second.starts_with('[') ? elements_of(*this, name, text->second)
                                       : parts_of(text->second, separator);
}

}  // namespace attune
