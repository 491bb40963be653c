#include "run_checker.hpp"

#include <algorithm>
#include <set>

#include "data/sampler.hpp"
#include "evaluate/evaluate.hpp"
#include "registry/loader.hpp"
#include "train/memory.hpp"
#include "train/metrics.hpp"
#include "train/session.hpp"

namespace attune::program {
namespace {

/// Whether the plan of a run depends on the setting: on none that only says how long and how fast
/// it trains.
bool is_planned(const std::string& section, const std::string& setting) {
  static const std::map<std::string, std::set<std::string>> some{
      {"train", {"micro_batch", "micro_tokens", "optimizer", "precision", "recompute"}},
      {"evaluate", {"micro_batch", "samples"}},
      {"parallel", {"shard", "replicas", "reproducible"}}};
  static const std::set<std::string> all{"model", "dataset", "strategy", "[strategy]", "optimizer"};
  const auto found = some.find(section);
  return all.contains(section) || (found != some.end() && found->second.contains(setting));
}

/// The settings that the plan depends on, as they take effect.
std::string planned_settings(const config::RunConfig& run) {
  std::string text;
  for (const auto& [section, settings] : run.effective)
    for (const auto& setting : settings)
      if (is_planned(section, setting.name))
        text += section + "." + setting.name + "=" + setting.value + "\n";
  return text;
}

}  // namespace

RunChecker::RunChecker(const config::Document& run_file) {
  auto places = default_plugin_places();
  for (auto& place : config::plugin_places(run_file)) places.push_back(std::move(place));
  load_plugins(registry_, places);
}

config::RunConfig RunChecker::check(const config::Document& run_file, std::int64_t ranks) {
  auto run = read(run_file);
  train::check_copies(run.parallel, ranks);
  const auto key = planned_settings(run);
  if (!opened_.contains(key)) opened_[key] = open(run);
  const auto& opened = opened_[key];
  metrics_ = train::declared_metrics(run, opened.data_metrics);
  train::check_metric_options(run, metrics_);
  const Sampler fits(opened.samples, run.train.global_batch, run.run.seed, static_cast<int>(ranks));
  return run;
}

config::RunConfig RunChecker::read(const config::Document& run_file) const {
  return config::read_run(run_file, registry_);
}

RunChecker::Opened RunChecker::open(const config::RunConfig& run) {
  const auto session = train::Session::plan(run, Mesh());
  memory_.push_back(train::host_memory(session));
  auto metrics =
      data_metrics(*session.dataset, session.data->split("validation"), session.model->spec());
  return {session.data->split("train").size(), std::move(metrics)};
}

}  // namespace attune::program
