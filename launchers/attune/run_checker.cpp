#include "run_checker.hpp"

#include "data/sampler.hpp"
#include "registry/loader.hpp"
#include "train/session.hpp"

namespace attune::program {
namespace {

/// [model] and [dataset] as they take effect.
std::string model_and_data(const config::RunConfig& run) {
  std::string text;
  for (const auto& [section, settings] : run.effective)
    if (section == "model" || section == "dataset")
      for (const auto& setting : settings) text += section + "." + setting.name + "=" + setting.value + "\n";
  return text;
}

}  // namespace

RunChecker::RunChecker(const config::Document& run_file) {
  auto places = default_plugin_places();
  for (auto& place : config::plugin_places(run_file)) places.push_back(std::move(place));
  load_plugins(registry_, places);
}

config::RunConfig RunChecker::check(const config::Document& run_file, std::int64_t ranks) {
  auto run = config::read_run(run_file, registry_);
  const auto key = model_and_data(run);
  if (!samples_.contains(key)) samples_[key] = train::Session::open(run, Comm()).data->split("train").size();
  Sampler(samples_[key], run.train.global_batch, run.run.seed, static_cast<int>(ranks));
  return run;
}

}  // namespace attune::program
