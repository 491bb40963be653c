// attune check: everything that `train` checks before its first step, and what the run will take.
#include <torch/torch.h>

#include <algorithm>
#include <iostream>
#include <numeric>

#include "command.hpp"
#include "core/files.hpp"
#include "data/sampler.hpp"
#include "option_table.hpp"
#include "ranks.hpp"
#include "train/cost.hpp"
#include "train/memory.hpp"
#include "train/prefix.hpp"
#include "train/schedule.hpp"
#include "train/session.hpp"
#include "train/surroundings.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;

void print_settings(const config::RunConfig& config) {
  std::vector<Row> rows{{"SETTING", "VALUE", "FROM"}};
  for (const auto& [section, all] : config.effective)
    for (const auto& setting : all) rows.push_back({(section.empty() ? "" : section + ".") + setting.name, setting.value, setting.origin});
  std::cout << text_table(rows) << "\n";
}

struct TokenShares {
  double mean_tokens = 0;  // per sample
  double trained = 0;      // share of rows that are targets
};

/// Over at most 256 samples.
TokenShares token_shares(const train::Session& s) {
  const auto& split = s.data->split("train");
  std::vector<std::int64_t> rows(static_cast<std::size_t>(std::min<std::int64_t>(256, split.size())));
  std::iota(rows.begin(), rows.end(), 0);
  const auto batch = load_batch(split, *s.dataset, rows);
  const double targets = (batch.targets != ignored_target).sum().item<double>();
  return {static_cast<double>(batch.length()) / static_cast<double>(rows.size()), targets / static_cast<double>(std::max<std::int64_t>(1, batch.length()))};
}

/// "1.4 GiB at most: weights ..., activations of 4 samples 0.9 GiB (tried just now)"
std::string memory_text(const train::Session& s, const train::Rehearsal& tried, std::int64_t samples) {
  const auto plan = train::plan_memory(s);
  const auto bytes = [](std::size_t n) { return human_bytes(static_cast<double>(n)); };
  if (!s.device.is_cpu()) return train::describe(plan);
  const auto activations = tried.took - std::min(tried.took, plan.gradients);
  return fmt::format("{} at most: {}, activations of the {} longest sample{} {}{} (tried just now), and the program", bytes(tried.resident + tried.took + plan.optimizer + plan.staging),
                     train::describe(plan), samples, samples == 1 ? "" : "s", bytes(activations), s.config.train.recompute ? " with blocks computed again" : "");
}

std::string time_text(double seconds) {
  if (seconds < 120) return fmt::format("{:.0f} s", seconds);
  return seconds < 7200 ? fmt::format("{:.0f} min", seconds / 60) : fmt::format("{:.1f} h", seconds / 3600);
}

/// From forward and backward passes on every rank at the same time: over the longest samples for the memory, over typical ones for the time.
void print_estimate(train::Session& s) {
  const auto& options = s.config.train;
  const auto micro_batch = std::max<std::int64_t>(1, options.micro_batch);
  auto longest = train::longest_first(s);
  longest.resize(static_cast<std::size_t>(std::min(micro_batch, std::ssize(longest))));
  auto rows = longest;  // what a strategy prepares, it prepares for these alone
  for (const auto row : train::cost_rows(s))
    if (std::ranges::find(rows, row) == rows.end()) rows.push_back(row);
  auto surroundings = train::RunSurroundings::rehearsal(s, {"train", rows});
  s.strategies->begin(*s.model, surroundings);
  train::rehearse(s, std::span(longest).first(1));  // the first pass also loads kernels and starts threads
  train::drop_gradients(trainable(*s.model));  // as every step does
  const auto tried = train::rehearse(s, longest);
  train::drop_gradients(trainable(*s.model));
  const double step = train::step_seconds(train::measure_cost(s), s);
  std::vector<NamedTensor> ever_trained;
  for (const auto& group : s.strategies->groups(*s.model)) ever_trained.insert(ever_trained.end(), group.parameters.begin(), group.parameters.end());
  const auto frozen = train::frozen_parts(s, ever_trained);
  if (!s.comm.root()) return;
  double all = 0, trained = 0;
  for (const auto& parameter : s.model->module().parameters()) all += static_cast<double>(parameter.numel());
  for (const auto& [name, parameter] : trainable(*s.model)) trained += static_cast<double>(parameter.numel());
  const auto shares = token_shares(s);
  const auto samples = s.data->split("train").size();
  const auto steps = train::steps_of(options, samples);
  const double tokens = static_cast<double>(steps * options.global_batch) * shares.mean_tokens;

  std::vector<Row> table{{"ESTIMATE", ""},
                          {"parameters", fmt::format("{:.0f}, of which {:.0f} train ({:.2f} %)", all, trained, 100 * trained / all)},
                          {"samples", fmt::format("{} in train, {} in validation", samples, s.data->split("validation").size())},
                          {"tokens", fmt::format("{:.0f} over {} steps; {:.0f} per sample, {:.0f} % of rows are targets", tokens, steps, shares.mean_tokens, 100 * shares.trained)},
                          {"memory per rank", memory_text(s, tried, micro_batch)},
                          {"time", fmt::format("about {} on {} rank{}, {:.3g} s a step, by passes over typical samples just now; without evaluations{}", time_text(static_cast<double>(steps) * step),
                                             s.comm.size(), s.comm.size() == 1 ? "" : "s", step, options.prefix_cache == "off" ? "" : " and what train.prefix_cache saves")}};
  if (frozen > 0 && options.prefix_cache == "off" && train::sees_again(s))
    table.push_back({"frozen", fmt::format("{} give the same in every epoch: train.prefix_cache = \"float32\" computes them once", train::describe_parts(frozen, *s.model))});
  std::cout << text_table(table);
}

int check(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("run", options::value<std::string>()->required(), "run file")("override", options::value<std::vector<std::string>>()->default_value({}, ""), "key=value");
  const auto values = parse(check_command, arguments, description, {{"run", 1}, {"override", -1}});
  if (!values) return static_cast<int>(ExitCode::done);
  return on_ranks([&](const Comm& comm) {
    const auto run = train::open_run((*values)["run"].as<std::string>(), (*values)["override"].as<std::vector<std::string>>(), comm);
    place_ranks(run.config.parallel, comm);
    auto session = train::Session::open(run.config, comm);
    if (comm.root()) print_settings(run.config);
    print_estimate(session);
    if (comm.root()) std::cout << "\n" << run.config.file.string() << " is in order\n";
    comm.barrier();
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace

const Command check_command{"check", "run.toml [section.key=value...]", "checks a run file, shows every setting with its origin, and estimates what the run takes", check};

}  // namespace attune::program
