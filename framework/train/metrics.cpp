#include "train/metrics.hpp"

#include <attune/error.hpp>

#include <algorithm>

#include "evaluate/evaluate.hpp"
#include "metrics/objection.hpp"

namespace attune::train {
namespace {

using config::Chosen;
using config::Setting;

std::vector<const Chosen*> plugins_of(const config::RunConfig& config) {
  std::vector<const Chosen*> all{&config.dataset_plugin};
  for (const auto& chosen : config.strategies) all.push_back(&chosen);
  for (const auto& chosen : config.callbacks) all.push_back(&chosen);
  return all;
}

/// "run.toml:12:13: " where the option was set, "" where it has its default. Of several plugins of
/// one name, that with this value.
std::string place_of(const config::RunConfig& config, const std::string& plugin,
                     const std::string& option, const std::string& value) {
  for (const auto& [section, settings] : config.effective) {
    const auto named = std::ranges::find(settings, "plugin", &Setting::name);
    const bool is_it =
        named == settings.end() ? section == plugin : named->value == to_toml(OptionValue(plugin));
    const auto found = std::ranges::find(settings, option, &Setting::name);
    if (!is_it || found == settings.end() || found->value != to_toml(OptionValue(value))) continue;
    return found->origin == "default" ? "" : found->origin + ": ";
  }
  return "";
}

}  // namespace

std::vector<Metric> declared_metrics(const config::RunConfig& config, std::vector<Metric> of_data) {
  std::vector<Strategies::Named> list;
  for (const auto& chosen : config.strategies)
    list.push_back({chosen.entry->name, chosen.build<Strategy>()});
  return Strategies(std::move(list)).metrics(std::move(of_data));
}

std::vector<Metric> declared_metrics(const Session& s) {
  return s.strategies->metrics(
      data_metrics(*s.dataset, s.data->split("validation"), s.model->spec()));
}

void check_metric_options(const config::RunConfig& config, const std::vector<Metric>& metrics) {
  const auto check = [&](const std::string& owner, const OptionSet& schema, const void* options) {
    for (const auto& option : schema.options) {
      if (!option.is_metric) continue;
      const auto name = std::get<std::string>(option.get(options));
      const auto objection = name.empty() ? "" : objection_to_metric(name, metrics);
      if (!objection.empty())
        fail("{}{}.{}: {}", place_of(config, owner, option.name, name), owner, option.name,
             objection);
    }
  };
  check("checkpoint", attune::describe<config::CheckpointOptions>(), &config.checkpoint);
  for (const auto* chosen : plugins_of(config))
    check(chosen->entry->name, chosen->entry->schema, chosen->options.get());
}

}  // namespace attune::train
