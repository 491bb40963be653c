// attune describe: the options of a plugin, from their one declaration. The reference page is made
// by `attune describe --all --markdown`.
#include <iostream>

#include "command.hpp"
#include "config/run_config.hpp"
#include "core/names.hpp"
#include "option_table.hpp"
#include "prepare/recipe.hpp"
#include "registry/loader.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;

struct Title {
  Kind kind;
  const char* plural;
};
constexpr Title titles[] = {{Kind::model, "Models"},        {Kind::dataset, "Datasets"},
                            {Kind::strategy, "Strategies"}, {Kind::optimizer, "Optimizers"},
                            {Kind::schedule, "Schedules"},  {Kind::callback, "Callbacks"}};

/// Every kind has names of its own, so one name may mean several entries.
std::vector<const Registry::Entry*> entries_named(const Registry& registry,
                                                  const std::string& text) {
  std::vector<const Registry::Entry*> found;
  std::vector<std::string> known;
  for (const auto& entry : registry.entries()) {
    known.push_back(entry.name);
    if (entry.name == text) found.push_back(&entry);
  }
  if (found.empty())
    fail("no plugin is named '{}'{}; `attune list` shows all", text, did_you_mean(text, known));
  return found;
}

std::string as_text(const Registry::Entry& entry) {
  auto text = fmt::format("{} '{}': {}\nfrom {} ({})\n\n", name(entry.kind), entry.name, entry.doc,
                          entry.plugin, entry.file);
  text +=
      entry.schema.options.empty() ? "It has no options.\n" : text_table(option_rows(entry.schema));
  return text + "\nIn a run file:\n\n" + toml_snippet(entry);
}

std::string as_markdown(const Registry::Entry& entry) {
  auto text = fmt::format("### `{}`\n\n{}\n\n", entry.name, entry.doc);
  if (!entry.schema.options.empty()) text += markdown_table(option_rows(entry.schema)) + "\n";
  return text + "```toml\n" + toml_snippet(entry) + "```\n";
}

using Sections = std::vector<std::pair<std::string, OptionSet>>;

std::string sections_as_text(const std::string& file, const Sections& sections) {
  std::string text;
  for (const auto& [section, schema] : sections)
    text += (section.empty() ? "Top of the " + file : "[" + section + "] of the " + file) + "\n\n" +
            text_table(option_rows(schema)) + "\n";
  return text;
}

std::string sections_as_markdown(const std::string& file, const Sections& sections) {
  std::string text = fmt::format("## The {}\n\n", file);
  for (const auto& [section, schema] : sections)
    text +=
        fmt::format("### {}\n\n{}\n", section.empty() ? "Top of the file" : "`[" + section + "]`",
                    markdown_table(option_rows(schema)));
  return text;
}

/// The sections of run files and recipes, then every plugin, by kind and name.
std::string everything(const Registry& registry, bool markdown) {
  std::string text = markdown ? "# Reference\n\nMade by `attune describe --all --markdown` from "
                                "the declared options; any change goes there.\n\n"
                              : "";
  const auto add = markdown ? sections_as_markdown : sections_as_text;
  text += add("run file", config::framework_sections()) + add("recipe", recipe_sections());
  for (const auto& [kind, plural] : titles) {
    if (markdown) text += fmt::format("## {}\n\n", plural);
    for (const auto& found : registry.names(kind))
      text += (markdown ? as_markdown : as_text)(registry.find(kind, found)) + "\n";
  }
  text.pop_back();
  return text;
}

int describe(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("name", options::value<std::string>(),
                            "name of a model, dataset, strategy, optimizer, schedule or callback")(
      "all", options::bool_switch(), "describe all sections of the run file and all plugins")(
      "markdown", options::bool_switch(), "print Markdown");
  const auto values = parse(describe_command, arguments, description, {{"name", 1}});
  if (!values) return static_cast<int>(ExitCode::done);
  const bool all = (*values)["all"].as<bool>();
  const bool markdown = (*values)["markdown"].as<bool>();
  if (all == (values->count("name") == 1))
    fail("attune describe: give a name or --all (`attune list` shows the names)");

  Registry registry;
  load_plugins(registry, default_plugin_places());
  if (all) {
    std::cout << everything(registry, markdown);
    return static_cast<int>(ExitCode::done);
  }
  std::string separator;
  for (const auto* entry : entries_named(registry, (*values)["name"].as<std::string>())) {
    std::cout << separator << (markdown ? as_markdown : as_text)(*entry);
    separator = "\n";
  }
  return static_cast<int>(ExitCode::done);
}

}  // namespace

const Command describe_command{"describe", "NAME | --all [--markdown]",
                               "shows the options of a plugin, or of all sections and plugins",
                               describe};

}  // namespace attune::program
