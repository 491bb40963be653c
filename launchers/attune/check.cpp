// attune check: everything that `train` checks before its first step, and what the run will take.
#include <torch/torch.h>

#include <chrono>
#include <iostream>
#include <numeric>

#include "command.hpp"
#include "data/sampler.hpp"
#include "option_table.hpp"
#include "ranks.hpp"
#include "train/memory.hpp"
#include "train/schedule.hpp"
#include "train/session.hpp"

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

/// Of a float32 matrix product of the model's width on this rank's threads.
double measured_flops(std::int64_t width) {
  const auto a = torch::randn({512, width}), b = torch::randn({width, 4 * width});
  torch::mm(a, b);
  const auto start = std::chrono::steady_clock::now();
  double seconds = 0, flops = 0;
  while (seconds < 0.3) {
    torch::mm(a, b);
    flops += 2.0 * 512 * static_cast<double>(width) * 4 * static_cast<double>(width);
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  return flops / seconds;
}

void print_estimate(const train::Session& s) {
  double all = 0, trained = 0;
  for (const auto& parameter : s.model->module().parameters()) all += static_cast<double>(parameter.numel());
  for (const auto& [name, parameter] : trainable(*s.model)) trained += static_cast<double>(parameter.numel());
  const auto& options = s.config.train;
  const auto shares = token_shares(s);
  const auto samples = static_cast<double>(s.data->split("train").size());
  const auto steps = train::steps_of(options, s.data->split("train").size());
  const double tokens = static_cast<double>(steps * options.global_batch) * shares.mean_tokens;
  // Two operations per parameter and token forward, as many backward to the inputs, and as many for the weights that train
  // (Kaplan et al. 2020, arXiv:2001.08361, section 2.1).
  const double operations = tokens * (4 * all + 2 * trained);
  const double speed = measured_flops(s.model->spec().width) * s.comm.size();

  std::cout << text_table({{"ESTIMATE", ""},
                           {"parameters", fmt::format("{:.0f}, of which {:.0f} train ({:.2f} %)", all, trained, 100 * trained / all)},
                           {"samples", fmt::format("{:.0f} in train, {} in validation", samples, s.data->split("validation").size())},
                           {"tokens", fmt::format("{:.0f} over {} steps; {:.0f} per sample, {:.0f} % of rows are targets", tokens, steps, shares.mean_tokens, 100 * shares.trained)},
                           {"memory per rank", train::describe(train::plan_memory(s), options.micro_batch)},
                           {"compute", fmt::format("{:.3g} operations", operations)},
                           {"time", fmt::format("at least {:.0f} s at the {:.0f} GFLOP/s measured just now on {} rank(s), without evaluations", operations / speed, speed / 1e9, s.comm.size())}});
}

int check(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("run", options::value<std::string>()->required(), "run file")("override", options::value<std::vector<std::string>>()->default_value({}, ""), "key=value");
  const auto values = parse(check_command, arguments, description, {{"run", 1}, {"override", -1}});
  if (!values) return static_cast<int>(ExitCode::done);
  return on_ranks([&](const Comm& comm) {
    train::set_threads(comm);
    const auto run = train::open_run((*values)["run"].as<std::string>(), (*values)["override"].as<std::vector<std::string>>(), comm);
    const auto session = train::Session::open(run.config, comm);
    if (comm.root()) {
      print_settings(run.config);
      print_estimate(session);
      std::cout << "\n" << run.config.file.string() << " is in order\n";
    }
    comm.barrier();
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace

const Command check_command{"check", "run.toml [section.key=value...]", "checks a run file, shows every setting with its origin, and estimates what the run takes", check};

}  // namespace attune::program
