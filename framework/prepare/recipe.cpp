#include "prepare/recipe.hpp"

#include <attune/error.hpp>

#include "config/document.hpp"
#include "core/files.hpp"

namespace attune {
namespace {

const std::vector<std::string> tables{"source", "clean", "split"};

/// Recipe and plugin options side by side: one table sets both.
struct TopLevel {
  Recipe* recipe;
  void* plugin;
};

Option redirected(Option option, bool to_plugin) {
  option.set = [set = std::move(option.set), to_plugin](void* object, const OptionValue& value) {
    const auto* both = static_cast<TopLevel*>(object);
    set(to_plugin ? both->plugin : both->recipe, value);
  };
  option.get = [get = std::move(option.get), to_plugin](const void* object) {
    const auto* both = static_cast<const TopLevel*>(object);
    return get(to_plugin ? both->plugin : both->recipe);
  };
  return option;
}

OptionSet top_level(const Registry::Entry& plugin) {
  OptionSet all;
  for (auto& option : describe<Recipe>().options) all.options.push_back(redirected(std::move(option), false));
  for (const auto& option : plugin.schema.options) {
    for (const auto& taken : all.options)
      if (taken.name == option.name) fail("the dataset plugin '{}' ({}) has an option '{}', which recipes use themselves", plugin.name, plugin.file, option.name);
    all.options.push_back(redirected(option, true));
  }
  return all;
}

std::vector<SourceOptions> bind_sources(const toml::table& root, config::Problems& problems) {
  std::vector<SourceOptions> sources;
  const auto* list = root["source"].as_array();
  if (!list || list->empty() || !list->is_array_of_tables()) {
    problems.add(root["source"] ? root["source"].node()->source() : root.source(), "a recipe needs at least one [[source]]");
    return sources;
  }
  for (const auto& node : *list) {
    auto& source = sources.emplace_back();
    config::bind_options(*node.as_table(), describe<SourceOptions>(), &source, problems);
    if (!source.layout.empty() && !source.fields.empty())
      problems.add(node.source(), "layout and fields both say where a record's fields come from; keep one of them");
    if (source.delimiter.size() > 1) problems.add(node.source(), "delimiter must be one character");
  }
  return sources;
}

}  // namespace

void CleanOptions::describe(Schema<CleanOptions>& s) {
  s.key("deduplicate", &CleanOptions::deduplicate, "\"exact\" keeps the first of equal records, over all splits").choices({"none", "exact", "near"});
}

void SplitOptions::describe(Schema<SplitOptions>& s) {
  s.key("validation", &SplitOptions::validation, "share of the records without a split of their own").range(0, 1);
  s.key("test", &SplitOptions::test, "likewise").range(0, 1);
  s.key("seed", &SplitOptions::seed, "which records go where").at_least(0);
  s.key("stratify", &SplitOptions::stratify, "keep the share of every label alike in all splits");
}

void Recipe::describe(Schema<Recipe>& s) {
  s.key("name", &Recipe::name, "of the data set").required();
  s.key("kind", &Recipe::kind, "the dataset plugin").required();
  s.key("licence", &Recipe::licence, "of the data, as an SPDX name where there is one").required();
  s.key("output", &Recipe::output, "the HDF5 file to write").required();
  s.key("tokenizer", &Recipe::tokenizer, "a model folder, a tokenizer.json or a .gguf").required();
  s.key("template", &Recipe::chat_template, "the chat template; without it the one the tokenizer comes with");
}

Recipe Recipe::parse(const config::Document& document, const Registry& registry) {
  Recipe recipe;
  recipe.path = document.path;
  recipe.text = read_text(document.path);
  const auto kind = document.root["kind"].value<std::string>();
  if (!kind) fail("{}: needs kind = \"...\", the dataset plugin, at its top level", document.path.string());
  const auto& plugin = registry.find(Kind::dataset, *kind);
  const auto options = plugin.defaults();
  TopLevel both{&recipe, options.get()};

  config::Problems problems;
  config::bind_options(document.root, top_level(plugin), &both, problems, tables);
  recipe.sources = bind_sources(document.root, problems);
  config::bind_options(config::section(document.root, "clean", problems), attune::describe<CleanOptions>(), &recipe.clean, problems);
  config::bind_options(config::section(document.root, "split", problems), attune::describe<SplitOptions>(), &recipe.split, problems);
  if (recipe.split.validation + recipe.split.test > 1)
    problems.add(document.root["split"].node()->source(), "validation and test together are more than all records");
  if (recipe.clean.deduplicate == "near")
    problems.add(document.root["clean"].node()->source(), "deduplicate = \"near\" is not available yet; use \"exact\" or \"none\"");
  problems.throw_if_any();
  recipe.dataset_options = options;
  return recipe;
}

}  // namespace attune
