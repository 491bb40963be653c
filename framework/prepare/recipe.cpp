#include "prepare/recipe.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <tuple>

#include "config/document.hpp"
#include "core/files.hpp"
#include "core/names.hpp"
#include "prepare/privacy.hpp"

namespace attune {
namespace {

const std::vector<std::string> tables{"source",  "clean",   "privacy", "split",
                                      "balance", "augment", "truncate"};

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
  for (auto& option : describe<Recipe>().options)
    all.options.push_back(redirected(std::move(option), false));
  for (const auto& option : plugin.schema.options) {
    for (const auto& taken : all.options)
      if (taken.name == option.name)
        fail("the dataset plugin '{}' ({}) has an option '{}', which recipes use themselves",
             plugin.name, plugin.file, option.name);
    all.options.push_back(redirected(option, true));
  }
  return all;
}

std::vector<SourceOptions> bind_sources(const toml::table& root, const std::string& on_error,
                                        config::Problems& problems) {
  std::vector<SourceOptions> sources;
  const auto* list = root["source"].as_array();
  if (!list || list->empty() || !list->is_array_of_tables()) {
    const auto* given = root.get("source");
    if (given && given->is_table())
      problems.add(given->source(),
                   "sources are a list: write each as [[source]], with two pairs of brackets");
    else if (given || !config::misspelled(root, "source", tables))
      problems.add(given ? given->source() : root.source(),
                   "a recipe needs at least one [[source]]");
    return sources;
  }
  for (const auto& node : *list) {
    auto& source = sources.emplace_back();
    config::bind_options(*node.as_table(), describe<SourceOptions>(), &source, problems);
    if (source.on_error.empty()) source.on_error = on_error;
    if (!source.layout.empty() && !source.fields.empty())
      problems.add(node.as_table()->get("fields")->source(),
                   "'layout' and 'fields' both define a record's fields: keep one of them");
    if (!source.ignore.empty() && source.layout.empty())
      problems.add(
          node.as_table()->get("ignore")->source(),
          "'ignore' applies to keys of a layout, but this source has no layout: remove it");
    if (!source.labels.empty() && !source.format.empty() && source.format != "idx")
      problems.add(node.as_table()->get("labels")->source(),
                   "'labels' is only for the label file of an idx source: map the label field of "
                   "other sources in 'fields'");
    if (source.delimiter.size() > 1)
      problems.add(
          node.as_table()->get("delimiter")->source(),
          fmt::format("'delimiter' is '{}', but must be one character, such as \";\" or \"\\t\"",
                      source.delimiter));
  }
  return sources;
}

template <class Options>
void bind_table(const toml::table& root, const char* name, Options& options,
                config::Problems& problems) {
  config::bind_options(config::section(root, name, problems), describe<Options>(), &options,
                       problems);
}

/// Where a key belongs that is unknown where it stands.
std::string where_is(const std::string& key, const Registry& registry) {
  const auto has = [&](const OptionSet& schema) {
    const auto names = config::names_of(schema);
    return std::find(names.begin(), names.end(), key) != names.end();
  };
  for (const auto& [section, schema] : recipe_sections())
    if (has(schema))
      return section.empty()
                 ? fmt::format("'{}' belongs to the top of the recipe, before the first table", key)
                 : fmt::format("'{}' belongs to [{}]", key, section);
  std::vector<std::string> kinds;
  for (const auto& entry : registry.entries())
    if (entry.kind == Kind::dataset && has(entry.schema))
      kinds.push_back(fmt::format("'{}'", entry.name));
  return kinds.empty()
             ? ""
             : fmt::format("'{}' belongs to recipes of kind {}, at their top", key, joined(kinds));
}

/// The dataset plugin that `kind` names. Errors have its place, or that of the key that stands in
/// its stead.
const Registry::Entry& plugin_of(const config::Document& document, const Registry& registry) {
  const auto& root = document.root;
  if (root.contains("model") && root.contains("dataset"))
    fail("{}: is a run file, not a recipe: give it to `attune train`", document.path.string());
  config::Problems problems;
  const auto* kind = root.get("kind");
  if (kind && kind->is_string()) {
    try {
      return registry.find(Kind::dataset, *kind->value<std::string>());
    } catch (const Error& error) {
      problems.add(kind->source(), error.what());
    }
  } else if (kind) {
    problems.add(kind->source(), "'kind' must be the name of a dataset plugin, in quotes: " +
                                     joined(registry.names(Kind::dataset)));
  } else {
    auto known = config::names_of(describe<Recipe>());
    known.insert(known.end(), tables.begin(), tables.end());
    const auto needed =
        fmt::format("a recipe needs kind = \"...\", the dataset plugin, at its top: {}",
                    joined(registry.names(Kind::dataset)));
    if (const auto* key = config::misspelled(root, "kind", known))
      problems.add(key->source(),
                   fmt::format("unknown key '{}'; did you mean 'kind'? {}", key->str(), needed));
    else
      problems.add(root.source(), needed);
  }
  problems.throw_if_any();
  throw Fault("a recipe without a kind had no mistake");
}

toml::source_region place(const toml::table& root, const char* name) {
  return root[name] ? root[name].node()->source() : root.source();
}

}  // namespace

void CleanOptions::describe(Schema<CleanOptions>& s) {
  s.key("normalize", &CleanOptions::normalize,
        "Unicode normal form that all texts are converted to")
      .choices({"none", "nfc", "nfkc"});
  s.key("control_characters", &CleanOptions::control_characters,
        "remove control characters except tabs and line ends, and convert line ends to \\n");
  s.key("min_length", &CleanOptions::min_length,
        "minimum length of a record's texts together, in characters; shorter records are dropped")
      .at_least(0);
  s.key("max_length", &CleanOptions::max_length,
        "maximum length of a record's texts together, in characters; longer records are dropped; "
        "0: no limit")
      .at_least(0);
  s.key("labels", &CleanOptions::labels,
        "allowed labels; a record with any other label is an unreadable row; empty: any label");
  s.key("deduplicate", &CleanOptions::deduplicate,
        "deduplication across all splits, which keeps the first of each group; exact: equal "
        "records; near: also near-duplicate texts")
      .choices({"none", "exact", "near"});
  s.key("similarity", &CleanOptions::similarity,
        "near-duplicate threshold: minimum Jaccard similarity of the word trigrams of two texts")
      .range(0.3, 1);
}

void PrivacyOptions::describe(Schema<PrivacyOptions>& s) {
  s.key("mask", &PrivacyOptions::mask,
        "personal data to replace by the kind's name in capitals: \"email\", \"phone\", \"card\", "
        "\"ip\"");
}

void SplitOptions::describe(Schema<SplitOptions>& s) {
  s.key("validation", &SplitOptions::validation,
        "fraction of the records without a fixed split that goes to validation")
      .range(0, 1);
  s.key("test", &SplitOptions::test,
        "fraction of the records without a fixed split that goes to test")
      .range(0, 1);
  s.key("seed", &SplitOptions::seed,
        "random seed of the split, of balancing, source weights and augmentation")
      .at_least(0);
  s.key("stratify", &SplitOptions::stratify, "keep the label distribution equal across splits");
  s.key("leakage", &SplitOptions::leakage,
        "drop training records that leak from validation or test; exact: equal records; near: also "
        "near-duplicate texts")
      .choices({"none", "exact", "near"});
}

void BalanceOptions::describe(Schema<BalanceOptions>& s) {
  s.key("method", &BalanceOptions::method,
        "class balancing of the training split; down: subsample every label to the count of the "
        "rarest; up: repeat records to the count of the most frequent; weights: store class "
        "weights in the data file")
      .choices({"none", "down", "up", "weights"});
}

void AugmentOptions::describe(Schema<AugmentOptions>& s) {
  s.key("copies", &AugmentOptions::copies, "augmented copies added for each training record")
      .range(0, 100);
  s.key("swap", &AugmentOptions::swap,
        "fraction of the words of an augmented copy that are swapped with another word")
      .range(0, 1);
  s.key("delete", &AugmentOptions::drop,
        "fraction of the words of an augmented copy that are deleted")
      .range(0, 0.9);
  s.key("fields", &AugmentOptions::fields, "fields whose words are swapped and deleted");
}

void TruncateOptions::describe(Schema<TruncateOptions>& s) {
  s.key("max_length", &TruncateOptions::max_length, "maximum sample length in tokens; 0: no limit")
      .at_least(0);
  s.key("policy", &TruncateOptions::policy,
        "treatment of samples longer than `max_length`: drop them, cut them on the left, on the "
        "right or in the middle, or split them into windows")
      .choices({"drop", "left", "right", "middle", "window"});
  s.key("overlap", &TruncateOptions::overlap, "tokens that consecutive windows of a sample share")
      .at_least(0);
}

void Recipe::describe(Schema<Recipe>& s) {
  s.key("name", &Recipe::name, "name of the data set").required();
  s.key("kind", &Recipe::kind, "dataset plugin that encodes the records").required();
  s.key("licence", &Recipe::licence, "licence of the data, as an SPDX identifier if there is one")
      .required();
  s.key("output", &Recipe::output, "path of the HDF5 file to write").required();
  s.key("tokenizer", &Recipe::tokenizer,
        "tokenizer: a model folder, a tokenizer.json or a .gguf file; not needed by kinds without "
        "text");
  s.key("template", &Recipe::chat_template,
        "chat template: the name of a built-in one, or a file ending in .jinja; empty: the "
        "tokenizer's own");
  s.key("on_error", &Recipe::on_error, "reaction to an unreadable row: stop, or skip and count it")
      .choices({"stop", "skip"});
  s.key("list_rejected", &Recipe::list_rejected,
        "write every dropped record and its reason to <output>.rejected.jsonl");
}

Recipe Recipe::parse(const config::Document& document, const Registry& registry) {
  Recipe recipe;
  recipe.path = document.path;
  recipe.text = read_text(document.path);
  const auto& plugin = plugin_of(document, registry);
  const auto options = plugin.defaults();
  TopLevel both{&recipe, options.get()};

  config::Problems problems;
  problems.look_elsewhere([&](const std::string& key) { return where_is(key, registry); });
  config::bind_options(document.root, top_level(plugin), &both, problems, tables,
                       document.path.parent_path());
  recipe.sources = bind_sources(document.root, recipe.on_error, problems);
  bind_table(document.root, "clean", recipe.clean, problems);
  bind_table(document.root, "privacy", recipe.privacy, problems);
  bind_table(document.root, "split", recipe.split, problems);
  bind_table(document.root, "balance", recipe.balance, problems);
  bind_table(document.root, "augment", recipe.augment, problems);
  bind_table(document.root, "truncate", recipe.truncate, problems);
  const auto& [clean, split, truncate] = std::tie(recipe.clean, recipe.split, recipe.truncate);
  if (split.validation + split.test > 1)
    problems.add(
        place(document.root, "split"),
        fmt::format("'validation' ({}) and 'test' ({}) add up to more than 1: lower one of them",
                    split.validation, split.test));
  if (clean.max_length > 0 && clean.max_length < clean.min_length)
    problems.add(place(document.root, "clean"),
                 fmt::format("'min_length' ({}) is above 'max_length' ({}), which drops every "
                             "record: lower 'min_length', or raise 'max_length'",
                             clean.min_length, clean.max_length));
  for (const auto& kind : recipe.privacy.mask)
    if (const auto kinds = mask_kinds(); std::find(kinds.begin(), kinds.end(), kind) == kinds.end())
      problems.add(place(document.root, "privacy"),
                   fmt::format("'mask' has the unknown kind '{}'; the kinds are: {}{}", kind,
                               joined(kinds), did_you_mean(kind, kinds)));
  if (truncate.policy == "window" && truncate.overlap * 2 > truncate.max_length)
    problems.add(place(document.root, "truncate"),
                 fmt::format("'overlap' ({}) must be at most half of 'max_length' ({})",
                             truncate.overlap, truncate.max_length));
  problems.throw_if_any();
  recipe.dataset_options = options;
  return recipe;
}

std::vector<std::pair<std::string, OptionSet>> recipe_sections() {
  return {{"", attune::describe<Recipe>()},
          {"[source]", attune::describe<SourceOptions>()},
          {"clean", attune::describe<CleanOptions>()},
          {"privacy", attune::describe<PrivacyOptions>()},
          {"split", attune::describe<SplitOptions>()},
          {"balance", attune::describe<BalanceOptions>()},
          {"augment", attune::describe<AugmentOptions>()},
          {"truncate", attune::describe<TruncateOptions>()}};
}

}  // namespace attune
