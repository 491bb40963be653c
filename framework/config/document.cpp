#include "config/document.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <tuple>

#include "config/syntax.hpp"
#include "core/files.hpp"
#include "core/names.hpp"

namespace attune::config {
namespace {

constexpr std::string_view command_line = "command line";

}  // namespace

bool is_from_command_line(const toml::node& node) {
  return node.source().path && *node.source().path == command_line;
}

namespace {

std::string place(const toml::source_region& where) {
  const std::string file = where.path ? *where.path : "";
  return file == command_line ? file
                              : fmt::format("{}:{}:{}", file, where.begin.line, where.begin.column);
}

void lay_over(toml::table& into, toml::table&& from);

/// strategy.lora.rank=8 is for a file with several [[strategy]].
void refuse_name_of_plugin(const std::string& section, const toml::table& table,
                           const toml::table& from) {
  const auto plugin = table["plugin"].value<std::string>();
  const auto* inner = plugin ? from.get(*plugin) : nullptr;
  if (inner && inner->is_table() && !table.contains(*plugin))
    fail("'{0}.{1}': the file has a single [{0}]: write {0}.{2}=...", section, *plugin,
         std::string(inner->as_table()->begin()->first.str()));
}

/// Of a list such as [[strategy]], the override names the element by its plugin:
/// strategy.lora.rank=8.
void lay_over_list(const std::string& section, toml::array& list, toml::table&& from) {
  for (auto&& [name, node] : from) {
    const auto named = [&, &name = name](const toml::node& element) {
      return element.is_table() &&
             (*element.as_table())["plugin"].value_or(std::string()) == name.str();
    };
    const auto element = std::find_if(list.begin(), list.end(), named);
    if (element == list.end() || !node.is_table())
      fail(
          "'{}.{}': the file has a list of [[{}]]: select an entry by its plugin, as in "
          "{}.NAME.key=value",
          section, name.str(), section, section);
    lay_over(*element->as_table(), std::move(*node.as_table()));
  }
}

/// Moves every value of `from` into `into`, table by table, so that source positions go along
/// (toml++ drops them when copying).
void lay_over(toml::table& into, toml::table&& from) {
  for (auto&& [key, node] : from) {
    toml::table* below = into.contains(key) ? into[key].as_table() : nullptr;
    toml::array* list = into.contains(key) ? into[key].as_array() : nullptr;
    if (below && node.is_table()) {
      refuse_name_of_plugin(std::string(key.str()), *below, *node.as_table());
      lay_over(*below, std::move(*node.as_table()));
    } else if (list && list->is_array_of_tables() && node.is_table()) {
      lay_over_list(std::string(key.str()), *list, std::move(*node.as_table()));
    } else {
      node.visit([&](auto& concrete) { into.insert_or_assign(key, std::move(concrete)); });
    }
  }
}

/// Else it is a text without quotes. No option is a date or a time: 01:00:00 is a text as well.
bool is_toml(const std::string& value) {
  try {
    const auto table = toml::parse("value = " + value);
    const auto node = table["value"];
    return !node.is_date() && !node.is_time() && !node.is_date_time();
  } catch (const toml::parse_error&) {
    return false;
  }
}

/// "parsing value: could not determine value type"
std::string_view without_start(std::string_view description) {
  constexpr std::string_view start = "Error while ";
  return description.starts_with(start) ? description.substr(start.size()) : description;
}

/// `index`: among the overrides, which becomes its line: some options keep the order in which they
/// were written.
toml::table parse_override(const std::string& text, std::size_t index) {
  const auto equals = text.find('=');
  if (equals == 0 || equals == std::string::npos)
    fail("'{}': an override has the form section.key=value", text);
  const auto key = text.substr(0, equals);
  const auto value = text.substr(equals + 1);
  try {
    return toml::parse(std::string(index, '\n') + key + " = " +
                           (is_toml(value) ? value : to_toml(OptionValue(value))),
                       command_line);
  } catch (const toml::parse_error& error) {
    fail("'{}': {}; an override has the form section.key=value", text,
         without_start(error.description()));
  }
}

std::string kind_of(const toml::node& node) {
  if (node.is_boolean()) return "a boolean";
  if (node.is_integer()) return "an integer";
  if (node.is_floating_point()) return "a number";
  if (node.is_string()) return "a text";
  if (node.is_array()) return "a list";
  return node.is_table() ? "a table" : "a date or time";
}

/// Absent when a value is no text.
std::optional<OptionValue> texts_by_name(const toml::table& table) {
  OptionMap map;
  for (const auto& [key, node] : table) {
    const auto value = node.value<std::string>();
    if (!value) return std::nullopt;
    map.emplace(key.str(), *value);
  }
  return map;
}

/// As they were written, and then those of the command line: toml++ sorts keys. Absent when a value
/// is no number.
std::optional<OptionValue> numbers_by_name(const toml::table& table) {
  using Place = std::tuple<bool, toml::source_index, toml::source_index>;
  std::vector<std::tuple<Place, std::string, double>> entries;
  for (const auto& [key, node] : table) {
    const auto number = node.value<double>();  // none for an integer that no double holds
    if (!node.is_number() || !number) return std::nullopt;
    const auto& start = key.source().begin;
    entries.emplace_back(Place(is_from_command_line(node), start.line, start.column), key.str(),
                         *number);
  }
  std::ranges::sort(entries);
  NumberMap map;
  for (auto& [place, name, number] : entries) map.emplace_back(std::move(name), number);
  return map;
}

/// A list in which all elements are of one type, which an empty one is; absent otherwise.
template <class Element>
std::optional<OptionValue> list_of(const toml::array& array) {
  if (!array.empty() && !array.is_homogeneous<Element>()) return std::nullopt;
  std::vector<Element> values;
  for (const auto& element : array) values.push_back(*element.template value<Element>());
  return values;
}

/// The node as the option's type; absent when it does not fit.
std::optional<OptionValue> convert(const toml::node& node, const Option& option) {
  const auto& fallback = option.fallback;
  if (std::holds_alternative<bool>(fallback)) {
    if (auto value = node.value_exact<bool>()) return *value;
  } else if (std::holds_alternative<std::int64_t>(fallback)) {
    if (auto value = node.value_exact<std::int64_t>()) return *value;
    if (const auto word = option.words.find(node.value_or(std::string()));
        word != option.words.end())
      return word->second;
  } else if (std::holds_alternative<double>(fallback)) {
    if (auto value = node.value<double>(); value && node.is_number()) return *value;
  } else if (std::holds_alternative<std::string>(fallback)) {
    if (auto value = node.value_exact<std::string>()) return *value;
    // slurm.time=30, without quotes
    if (auto value = node.value_exact<std::int64_t>(); value && is_from_command_line(node))
      return std::to_string(*value);
  } else if (std::holds_alternative<std::vector<std::string>>(fallback)) {
    if (auto value = node.value_exact<std::string>()) return std::vector<std::string>{*value};
    if (const auto* array = node.as_array()) return list_of<std::string>(*array);
  } else if (std::holds_alternative<std::vector<std::int64_t>>(fallback)) {
    if (const auto* array = node.as_array()) return list_of<std::int64_t>(*array);
  } else if (const auto* table = node.as_table()) {
    return std::holds_alternative<OptionMap>(fallback) ? texts_by_name(*table)
                                                       : numbers_by_name(*table);
  }
  return std::nullopt;
}

/// What to write instead, when that is clear from the value; "; write 8".
std::string type_advice(const toml::node& node, const Option& option) {
  const bool is_number = std::holds_alternative<std::int64_t>(option.fallback) ||
                         std::holds_alternative<double>(option.fallback);
  if (const auto text = node.value_exact<std::string>()) {
    char* end = nullptr;
    std::strtod(text->c_str(), &end);
    const bool reads_as_number = !text->empty() && *end == '\0';
    const bool reads_as_boolean = *text == "true" || *text == "false";
    if ((is_number && reads_as_number) ||
        (std::holds_alternative<bool>(option.fallback) && reads_as_boolean))
      return fmt::format(": write {} without quotes", *text);
    return "";
  }
  if (std::holds_alternative<std::int64_t>(option.fallback))
    if (const auto number = node.value_exact<double>();
        number && std::floor(*number) == *number && std::abs(*number) < 1e15)
      return fmt::format(": write {:.0f}", *number);
  if (std::holds_alternative<bool>(option.fallback))
    if (const auto number = node.value_exact<std::int64_t>();
        number && (*number == 0 || *number == 1))
      return *number == 1 ? ": write true" : ": write false";
  if (!option.allowed.empty()) {
    std::vector<std::string> names;
    for (const auto& name : option.allowed) names.push_back(to_toml(OptionValue(name)));
    return ": write " + joined(names, " or ");
  }
  if (std::holds_alternative<std::string>(option.fallback)) {
    if (const auto number = node.value_exact<std::int64_t>())
      return fmt::format(": write \"{}\"", *number);
    if (const auto number = node.value_exact<double>())
      return fmt::format(": write \"{}\"", *number);
    if (node.is_date() || node.is_time() || node.is_date_time()) return ": write it in quotes";
    if (const auto* list = node.as_array(); list && list->size() == 1 && list->get(0)->is_string())
      return ": write it without [ ]";
  }
  if (std::holds_alternative<std::vector<std::string>>(option.fallback) && node.is_array())
    return " with elements that are not texts: write each in quotes";
  if (std::holds_alternative<std::vector<std::int64_t>>(option.fallback))
    return node.is_array() ? " with elements that are not integers" : ": write [1, 2]";
  if (std::holds_alternative<OptionMap>(option.fallback))
    return node.is_table() ? " with values that are not texts: write each in quotes"
                           : ": write { name = \"value\" }";
  if (std::holds_alternative<NumberMap>(option.fallback))
    return node.is_table()
               ? " with values that are not numbers, or too large to be represented exactly"
               : ": write { name = 1.0 }";
  return "";
}

std::string expected(const Option& option) {
  auto text = type_name(option.fallback);
  for (const auto& [word, value] : option.words) text += fmt::format(" or '{}'", word);
  return text;
}

std::string range_text(const Option& option) {
  std::string text;
  if (std::isfinite(option.low))
    text = fmt::format("{} {}", option.open_low ? "above" : "at least", option.low);
  if (std::isfinite(option.high))
    text += fmt::format("{}{} {}", text.empty() ? "" : " and ",
                        option.open_high ? "below" : "at most", option.high);
  return text;
}

/// What is wrong with the value; "" when nothing is.
std::string objection(const Option& option, const OptionValue& value) {
  double number = 0;
  if (const auto* integer = std::get_if<std::int64_t>(&value))
    number = static_cast<double>(*integer);
  if (const auto* real = std::get_if<double>(&value)) number = *real;
  const bool is_above = option.open_low ? number > option.low : number >= option.low;
  const bool is_below = option.open_high ? number < option.high : number <= option.high;
  if (std::holds_alternative<std::int64_t>(value) || std::holds_alternative<double>(value))
    if (!is_above || !is_below)
      return fmt::format("'{}' is {}, it must be {}", option.name, number, range_text(option));
  if (const auto* text = std::get_if<std::string>(&value); text && !option.allowed.empty())
    if (std::find(option.allowed.begin(), option.allowed.end(), *text) == option.allowed.end())
      return fmt::format("'{}' is '{}', it must be one of {}{}", option.name, *text,
                         joined(option.allowed), did_you_mean(*text, option.allowed));
  return "";
}

/// The option's path or paths. Where the document has a folder, those of the command line become
/// absolute, so that they are not taken for paths from that folder later.
OptionValue reached(OptionValue value, const toml::node* node,
                    const std::filesystem::path& folder) {
  const auto change = [&](std::string& path) {
    if (path.empty()) return;
    path = node && is_from_command_line(*node) ? std::filesystem::absolute(path).string()
                                               : reached_from(folder, path);
  };
  if (auto* path = std::get_if<std::string>(&value)) change(*path);
  if (auto* paths = std::get_if<std::vector<std::string>>(&value))
    std::ranges::for_each(*paths, change);
  return value;
}

}  // namespace

std::string reached_from(const std::filesystem::path& folder, const std::string& path) {
  if (folder.empty() || path.empty()) return path;
  const auto there = folder / path;  // `path` itself if it is absolute
  std::error_code ignored;
  const bool is_only_here =
      !std::filesystem::exists(there, ignored) && std::filesystem::exists(path, ignored);
  return is_only_here ? path : there.string();
}

Document Document::parse(const std::filesystem::path& path,
                         const std::vector<std::string>& overrides) {
  return parse_text(read_text(path), path, overrides);
}

Document Document::parse_text(const std::string& text, const std::filesystem::path& path,
                              const std::vector<std::string>& overrides) {
  Document document;
  document.path = path;
  try {
    document.root = toml::parse(text, path.string());
  } catch (const toml::parse_error& error) {
    const auto line = static_cast<std::uint32_t>(error.source().begin.line);
    fail("{}: {}{}", place(error.source()), without_start(error.description()),
         syntax_advice(text, line, error.description()));
  }
  for (std::size_t i = 0; i < overrides.size(); ++i)
    lay_over(document.root, parse_override(overrides[i], i));
  return document;
}

void Problems::add(const toml::source_region& where, std::string text) {
  problems_.push_back({where.path ? *where.path : "", where.begin, std::move(text)});
}

void Problems::add_unknown(const toml::key& key, const std::vector<std::string>& known) {
  const std::string name(key.str());
  auto text = fmt::format("unknown key '{}'", name) + did_you_mean(name, known);
  const auto where = elsewhere_ ? elsewhere_(name) : "";
  if (!where.empty())
    text += "; " + where;
  else if (nearest(name, known).empty())
    text += "; the keys here are " + joined(known);
  add(key.source(), std::move(text));
}

const toml::key* misspelled(const toml::table& table, const std::string& wanted,
                            const std::vector<std::string>& known) {
  if (table.contains(wanted)) return nullptr;
  for (const auto& [key, node] : table) {
    const std::string name(key.str());
    if (std::find(known.begin(), known.end(), name) == known.end() &&
        nearest(name, known) == wanted)
      return &key;
  }
  return nullptr;
}

std::vector<std::string> names_of(const OptionSet& schema) {
  std::vector<std::string> names;
  for (const auto& option : schema.options) names.push_back(option.name);
  return names;
}

void Problems::throw_if_any() const {
  if (problems_.empty()) return;
  auto sorted = problems_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return std::tie(a.file, a.position.line, a.position.column) <
           std::tie(b.file, b.position.line, b.position.column);
  });
  std::vector<std::string> lines;
  for (const auto& problem : sorted)
    lines.push_back(
        problem.file == command_line || problem.file.empty()
            ? fmt::format("{}: {}", problem.file.empty() ? "run file" : problem.file, problem.text)
            : fmt::format("{}:{}:{}: {}", problem.file, problem.position.line,
                          problem.position.column, problem.text));
  throw Error(joined(lines, "\n"));
}

const toml::table& section(const toml::table& root, std::string_view name, Problems& problems) {
  static const toml::table empty;
  const toml::node* node = root.get(name);
  if (!node) return empty;
  if (const auto* table = node->as_table()) return *table;
  const auto* list = node->as_array();
  const bool has_two_brackets = list && !list->empty() && list->is_array_of_tables();
  const auto* cure = has_two_brackets ? ": write it with one pair of brackets" : "";
  problems.add(node->source(), fmt::format("'{}' must be a table, [{}], but is {}{}", name, name,
                                           kind_of(*node), cure));
  return empty;
}

void bind_options(const toml::table& table, const OptionSet& schema, void* object,
                  Problems& problems, const std::vector<std::string>& handled_elsewhere,
                  const std::filesystem::path& folder) {
  auto names = names_of(schema);
  names.insert(names.end(), handled_elsewhere.begin(), handled_elsewhere.end());

  for (const auto& [key, node] : table) {
    const auto option = std::find_if(schema.options.begin(), schema.options.end(),
                                     [&](const auto& o) { return o.name == key.str(); });
    if (option == schema.options.end()) {
      if (std::find(handled_elsewhere.begin(), handled_elsewhere.end(), key.str()) !=
          handled_elsewhere.end())
        continue;
      problems.add_unknown(key, names);
      continue;
    }
    const auto value = convert(node, *option);
    const bool word = node.is_string() && !option->words.empty();
    if (!value) {
      problems.add(node.source(),
                   fmt::format("'{}' must be {}, but is {}{}", key.str(), expected(*option),
                               kind_of(node), type_advice(node, *option)));
    } else if (auto text = word ? "" : objection(*option, *value); !text.empty()) {
      problems.add(node.source(), std::move(text));
    } else {
      const bool is_elsewhere = option->is_path && !folder.empty();
      option->set(object, is_elsewhere ? reached(*value, &node, folder) : *value);
    }
  }
  for (const auto& option : schema.options)
    if (option.is_path && !folder.empty() && !table.contains(option.name))
      option.set(object, reached(option.fallback, nullptr, folder));
  for (const auto& option : schema.options)
    if (option.is_required && !table.contains(option.name) &&
        !misspelled(table, option.name, names))
      problems.add(table.source(),
                   fmt::format("'{}' is missing here ({})", option.name, option.doc));
}

std::vector<Setting> settings(const toml::table& table, const OptionSet& schema, const void* object,
                              OptionRole otherwise, bool as_written) {
  std::vector<Setting> all;
  for (const auto& option : schema.options) {
    const auto* node = table.get(option.name);
    auto value = option.get(object);
    if (option.is_path && as_written && !node) value = option.fallback;
    if (option.is_path && as_written && node && !is_from_command_line(*node))
      value = convert(*node, option).value_or(value);
    all.push_back({option.name, to_toml(option, value), node ? place(node->source()) : "default",
                   option.role.value_or(otherwise)});
  }
  return all;
}

}  // namespace attune::config
