#include "option_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/names.hpp"

namespace attune::program {
namespace {

std::string accepted(const Option& option) {
  if (!option.allowed.empty()) return joined(option.allowed, " | ");
  if (option.is_metric) return "a metric of the run";
  const bool low = std::isfinite(option.low);
  const bool high = std::isfinite(option.high);
  std::string text;
  if (low) text = fmt::format("{} {}", option.open_low ? "above" : "at least", option.low);
  if (high)
    text += fmt::format("{}{} {}", low ? ", " : "", option.open_high ? "below" : "at most",
                        option.high);
  return text;
}

std::string in_markdown(std::string cell) {
  for (std::size_t at = 0; (at = cell.find('|', at)) != std::string::npos; at += 2)
    cell.insert(at, "\\");
  return cell;
}

}  // namespace

std::string text_table(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths(rows.front().size());
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) line += fmt::format("{:{}}  ", row[i], widths[i]);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string markdown_table(const std::vector<Row>& rows) {
  std::string text;
  for (const auto& row : rows) {
    text += "|";
    for (const auto& cell : row) text += " " + in_markdown(cell) + " |";
    text += "\n";
    if (&row != &rows.front()) continue;
    text += "|";
    for (std::size_t i = 0; i < row.size(); ++i) text += "---|";
    text += "\n";
  }
  return text;
}

std::vector<Row> option_rows(const OptionSet& schema) {
  std::vector<Row> rows{{"option", "type", "default", "accepts", "description"}};
  for (const auto& option : schema.options)
    rows.push_back({option.name, type_name(option.fallback),
                    option.is_required ? "required" : to_toml(option, option.fallback),
                    accepted(option), option.doc});
  return rows;
}

std::string toml_snippet(const Registry::Entry& entry) {
  const std::string kind = name(entry.kind);
  auto text = (entry.kind == Kind::callback ? "[[" + kind + "]]" : "[" + kind + "]") +
              "\nplugin = \"" + entry.name + "\"\n";
  for (const auto& option : entry.schema.options)
    text += option.is_required
                ? fmt::format("{} =    # required: {}\n", option.name, option.doc)
                : fmt::format("{} = {}\n", option.name, to_toml(option, option.fallback));
  return text;
}

}  // namespace attune::program
