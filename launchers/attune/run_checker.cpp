#include "run_checker.hpp"

#include <algorithm>

#include "data/sampler.hpp"
#include "registry/loader.hpp"
#include "train/memory.hpp"
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
  auto run = read(run_file);
  const auto key = model_and_data(run);
  if (!samples_.contains(key)) samples_[key] = open(run);
  Sampler(samples_[key], run.train.global_batch, run.run.seed, static_cast<int>(ranks));
  return run;
}

config::RunConfig RunChecker::read(const config::Document& run_file) const { return config::read_run(run_file, registry_); }

std::size_t RunChecker::open(config::RunConfig run) {
  if (run.parallel.device == "cuda") run.train.precision = "float32";  // no word on how fast this processor is
  run.parallel.device = "cpu";  // the GPUs are those of the compute node: this machine need not have one
  const auto session = train::Session::open(run, Comm());
  const auto plan = train::plan_memory(session);
  rank_bytes_ = std::max(rank_bytes_, static_cast<double>(plan.weights + plan.gradients + plan.optimizer + plan.staging));
  return session.data->split("train").size();
}

}  // namespace attune::program
