// attune list: what can be named in a run file, and which library it comes from.
#include <iostream>

#include "command.hpp"
#include "core/names.hpp"
#include "option_table.hpp"
#include "registry/loader.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;

constexpr Kind kinds[] = {Kind::model,     Kind::dataset,  Kind::strategy,
                          Kind::optimizer, Kind::schedule, Kind::callback};

std::vector<Kind> chosen_kinds(const options::variables_map& values) {
  if (!values.count("kind")) return {std::begin(kinds), std::end(kinds)};
  const auto text = values["kind"].as<std::string>();
  std::vector<std::string> known;
  for (const auto kind : kinds) {
    if (text == name(kind)) return {kind};
    known.emplace_back(name(kind));
  }
  fail("there is no kind of plugin '{}'{} (the kinds are: {})", text, did_you_mean(text, known),
       joined(known));
}

int list(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()(
      "kind", options::value<std::string>(),
      "kind to list: model, dataset, strategy, optimizer, schedule or callback; default: all");
  const auto values = parse(list_command, arguments, description, {{"kind", 1}});
  if (!values) return static_cast<int>(ExitCode::done);

  Registry registry;
  load_plugins(registry, default_plugin_places());
  std::vector<Row> rows{{"KIND", "NAME", "DESCRIPTION", "PLUGIN", "FILE"}};
  for (const auto kind : chosen_kinds(*values))
    for (const auto& found : registry.names(kind)) {
      const auto& entry = registry.find(kind, found);
      rows.push_back({name(kind), entry.name, entry.doc, entry.plugin, entry.file});
    }
  std::cout << text_table(rows);
  return static_cast<int>(ExitCode::done);
}

}  // namespace

const Command list_command{
    "list", "[KIND]", "lists models, datasets, strategies, optimizers, schedules and callbacks",
    list};

}  // namespace attune::program
