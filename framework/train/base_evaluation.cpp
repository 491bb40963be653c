#include "train/base_evaluation.hpp"

#include <attune/nn.hpp>
#include <dlfcn.h>
#include <torch/torch.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "core/cache.hpp"
#include "core/hash.hpp"
#include "core/stopwatch.hpp"
#include "parallel/mpi.hpp"
#include "parallel/watchdog.hpp"
#include "train/metrics.hpp"
#include "weights/model_files.hpp"

namespace attune::train {
namespace {

using nlohmann::json;

/// A classifier's head may be new, and is then drawn with the run's seed.
std::string head_sha256(Model& model) {
  Sha256 sum;
  for (const auto& name : model.head_modules())
    for (const auto& parameter : nn::module_at(model.module(), name).parameters()) {
      const at::Tensor plain = parameter.detach().cpu().contiguous();
      sum.add(plain.const_data_ptr(), plain.nbytes());
    }
  return sum.hex();
}

/// The library that this function is in.
std::string code_sha256() {
  Dl_info info{};
  const bool is_known =
      ::dladdr(reinterpret_cast<const void*>(&key_of_base_evaluation), &info) != 0;
  return cached_sha256_of_file(is_known ? info.dli_fname : "/proc/self/exe");
}

void add_settings(json& list, const std::vector<config::Setting>& settings) {
  for (const auto& setting : settings)
    if (setting.role != OptionRole::location) list.push_back({setting.name, setting.value});
}

/// Which of the strategies take part in what is measured: one that defines the loss; all of them
/// where they change the base, or measure what the data do not declare.
std::vector<bool> strategies_that_matter(const Session& s, const std::vector<Metric>& measured) {
  const auto of_data = data_metrics(*s.dataset, s.data->split("validation"), s.model->spec());
  const auto is_added = [&](const Metric& metric) { return !find_metric(of_data, metric.name); };
  std::vector<bool> matter(s.config.strategies.size(),
                           s.base_is_changed || std::ranges::any_of(measured, is_added));
  if (const auto defining = s.strategies->defining_loss()) matter[*defining] = true;
  return matter;
}

/// Options of model, data set and strategies that matter.
json settings_that_matter(const Session& s, const std::vector<bool>& strategies) {
  auto all = json::array();
  std::size_t strategy = 0;
  for (const auto& [section, settings] : s.config.effective) {
    const bool is_strategy = section == "strategy" || section == "[strategy]";
    const bool matters =
        is_strategy ? strategies[strategy++] : section == "model" || section == "dataset";
    if (matters) add_settings(all, settings);
  }
  return all;
}

json plugins_that_matter(const Session& s, const std::vector<bool>& strategies) {
  json files = json::array();
  const auto add = [&](const config::Chosen& chosen) {
    if (!chosen.entry->file.empty()) files.push_back(cached_sha256_of_file(chosen.entry->file));
  };
  add(s.config.model_plugin);
  add(s.config.dataset_plugin);
  for (std::size_t i = 0; i < strategies.size(); ++i)
    if (strategies[i]) add(s.config.strategies[i]);
  return files;
}

bool is_finite(const Metrics& metrics) {
  return std::ranges::all_of(metrics,
                             [](const auto& metric) { return std::isfinite(metric.second); });
}

std::string text_of(const BaseEvaluation& evaluation) {
  return json{{"metrics", evaluation.metrics}, {"without_target", evaluation.without_target}}
             .dump() +
         "\n";
}

/// Absent where the text is not one that text_of() made of these metrics and so many samples.
std::optional<BaseEvaluation> parsed(const std::string& text, const std::vector<Metric>& declared,
                                     std::int64_t samples) {
  try {
    const auto all = json::parse(text);
    BaseEvaluation found{all.at("metrics").get<Metrics>(),
                         all.at("without_target").get<std::int64_t>(), true};
    const auto is_there = [&](const Metric& metric) { return found.metrics.contains(metric.name); };
    const bool is_whole =
        found.metrics.size() == declared.size() && std::ranges::all_of(declared, is_there);
    const bool is_possible = found.without_target >= 0 && found.without_target < samples;
    return is_whole && is_possible && is_finite(found.metrics) ? std::optional(std::move(found))
                                                               : std::nullopt;
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

/// On rank 0: what is known, or the right to find out.
struct Turn {
  std::string known;
  std::optional<CacheLock> lock;
  Stopwatch waited;

  /// is_valid: of the text that is kept.
  template <class IsValid>
  void wait(const std::string& name, const IsValid& is_valid) {
    lock = CacheLock::try_take(name);
    if (!lock && waited.seconds() > longest_wait) lock = CacheLock::of_nothing();
    if (!lock) return;
    if (auto text = read_cached(name); text && is_valid(*text)) known = *text;
  }
  bool has_come() const { return lock.has_value(); }

  /// Seconds: who evaluates may have been stopped, by a suspended job for one.
  static constexpr double longest_wait = 600;
};

constexpr auto between_looks = std::chrono::milliseconds(200);

}  // namespace

UntrainedBase::UntrainedBase(const Session& session) {
  const torch::NoGradGuard no_grad;
  for (const auto& [parameter, own] : session.base_values) {
    adapted_.emplace_back(parameter, parameter.detach().clone());
    parameter.copy_(own);
  }
}

UntrainedBase::~UntrainedBase() {
  const torch::NoGradGuard no_grad;
  for (const auto& [parameter, value] : adapted_) parameter.copy_(value);
}

std::string key_of_base_evaluation(const Session& s) {
  const auto& validation = s.data->split("validation");
  const auto metrics = declared_metrics(s);
  const auto strategies = strategies_that_matter(s, metrics);
  const json all{{"base", s.base_sha256},
                 {"config", s.files->config},
                 {"labels", s.data->labels()},
                 {"head", head_sha256(*s.model)},
                 {"data", validation.sha256()},
                 {"samples", samples_to_evaluate(validation, s.config.evaluate.samples)},
                 {"micro_batch", s.config.evaluate.micro_batch},
                 {"precision", s.config.train.precision},
                 {"device", s.device.str()},
                 {"code", code_sha256()},
                 {"metrics", metrics_to_json(metrics)},
                 {"plugins", plugins_that_matter(s, strategies)},
                 {"settings", settings_that_matter(s, strategies)}};
  return sha256(all.dump());
}

std::optional<BaseEvaluation> evaluate_base(
    const Session& session, Interruption& interruption,
    const std::function<std::optional<BaseEvaluation>()>& evaluate) {
  const auto& world = session.mesh.world;
  const auto declared = declared_metrics(session);
  const auto samples =
      samples_to_evaluate(session.data->split("validation"), session.config.evaluate.samples);
  const auto is_valid = [&](const std::string& text) {
    return parsed(text, declared, samples).has_value();
  };
  Turn turn;
  std::string name;
  on_root(world, [&] { name = "base-evaluations/" + key_of_base_evaluation(session); });
  for (bool first = true;; first = false) {
    on_root(world, [&] { turn.wait(name, is_valid); });
    if (world.max(turn.has_come()) != 0) break;
    if (interruption.agree()) return std::nullopt;
    if (first && world.root())
      fmt::print(stderr,
                 "another run is evaluating this base model on the same samples: waiting for its "
                 "results\n");
    parallel::report_phase("evaluation", 0);
    std::this_thread::sleep_for(between_looks);
  }
  if (const auto known = world.broadcast(turn.known); !known.empty())
    return parsed(known, declared, samples);
  auto evaluation = evaluate();
  on_root(world, [&] {
    if (evaluation && is_finite(evaluation->metrics)) keep_cached(name, text_of(*evaluation));
  });
  return evaluation;
}

}  // namespace attune::train
