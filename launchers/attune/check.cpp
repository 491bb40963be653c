// attune check: everything that `train` checks before its first step, and what the run will take.
// From the headers of the model's files, for a login node; with --measure from passes over the
// samples, on as many ranks as it is started on.
#include <attune/linear.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <iostream>
#include <numeric>

#include "command.hpp"
#include "core/files.hpp"
#include "data/sampler.hpp"
#include "device.hpp"
#include "device/device.hpp"
#include "option_table.hpp"
#include "parallel/mpi.hpp"
#include "preflight.hpp"
#include "ranks.hpp"
#include "train/adapter_folder.hpp"
#include "train/cost.hpp"
#include "train/hidden_cache.hpp"
#include "train/memory.hpp"
#include "train/metrics.hpp"
#include "train/plan.hpp"
#include "train/publish.hpp"
#include "train/schedule.hpp"
#include "train/session.hpp"
#include "train/run_context.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;

void print_settings(const config::RunConfig& config) {
  std::vector<Row> rows{{"SETTING", "VALUE", "FROM"}};
  for (const auto& [section, all] : config.effective)
    for (const auto& setting : all)
      rows.push_back(
          {(section.empty() ? "" : section + ".") + setting.name, setting.value, setting.origin});
  std::cout << text_table(rows) << "\n" << std::flush;  // what follows may take long, or be refused
}

struct TokenShares {
  double mean_tokens = 0;  // per sample
  double trained = 0;      // share of rows that are targets
};

/// Over at most 256 samples.
TokenShares token_shares(const train::Session& s) {
  const auto& split = s.data->split("train");
  std::vector<std::int64_t> rows(
      static_cast<std::size_t>(std::min<std::int64_t>(256, split.size())));
  std::iota(rows.begin(), rows.end(), 0);
  const auto batch = load_batch(split, *s.dataset, rows);
  const double targets = (batch.targets != ignored_target).sum().item<double>();
  return {static_cast<double>(batch.length()) / static_cast<double>(rows.size()),
          targets / static_cast<double>(std::max<std::int64_t>(1, batch.length()))};
}

std::string bytes_text(std::size_t bytes) { return human_bytes(static_cast<double>(bytes)); }

/// Whether the ranks of a node belong to several copies of what is trained.
bool several_copies(const train::Session& s) {
  return train::holds_trained_once(s) &&
         train::copies_on_node(static_cast<std::size_t>(train::ranks_of_node(s)),
                               static_cast<std::size_t>(train::ranks_of_copy(s))) > 1;
}

/// The rows for a rank that holds at most so much, and for a node, if its ranks share memory.
std::vector<Row> memory_rows(const train::Session& s, std::string of_rank,
                             std::optional<std::size_t> most) {
  std::vector<Row> rows{{"memory per rank", std::move(of_rank)}};
  const auto shared = train::plan_memory(s).shared;
  if (most && shared > 0)
    rows.push_back({"memory per node",
                    fmt::format("{} for {} ranks, which hold {} of the weights once{}",
                                bytes_text(train::held_on_node(s, *most)), train::ranks_of_node(s),
                                bytes_text(shared), several_copies(s) ? " in each copy" : "")});
  return rows;
}

/// "the 4 longest samples", and whether blocks are recomputed
std::string longest_text(const train::Session& s) {
  const auto samples = train::samples_of_pass(s);
  return fmt::format("{} longest sample{}{}", samples, samples == 1 ? "" : "s",
                     s.config.train.recompute ? ", with activation checkpointing" : "");
}

/// What a pass holds for a while.
const char* passing_text(const train::MemoryPlan& plan) {
  return plan.shards > 1 ? "gradients being sent and activations" : "activations";
}

/// "about 1.4 GiB: weights ..., activations of the 4 longest samples 0.9 GiB; plus the
/// program itself"
std::vector<Row> planned_memory(const train::Session& s) {
  const auto plan = train::plan_memory(s);
  const auto most = train::most_planned(s);
  if (!most)
    return memory_rows(
        s,
        fmt::format("{} and activations, which depend on the values of the weights: use --measure",
                    train::describe(plan)),
        most);
  return memory_rows(
      s,
      fmt::format("about {}{}: {}, {} of the {} {}; plus the program itself", bytes_text(*most),
                  train::computes_on_accelerator(s) ? " on a GPU" : "", train::describe(plan),
                  passing_text(plan), longest_text(s), bytes_text(*train::planned_activations(s))),
      most);
}

struct Measured {
  // most bytes held while strategies began, and in an evaluation
  std::size_t before = 0;
  std::size_t evaluation = 0;
  train::Rehearsal longest;  // a pass over the longest samples
  double step = 0;           // seconds
  std::int64_t frozen = 0;   // parts of the model below all that is trained
};

/// The same from what a pass took: "1.4 GiB at most: ..."
std::vector<Row> measured_memory(const train::Session& s, const Measured& measured) {
  const auto& tried = measured.longest;
  const auto plan = train::plan_memory(s);
  const auto activations = tried.took - std::min(tried.took, plan.gradients);
  const auto most = std::max(
      {tried.resident + tried.took + plan.sums + plan.optimizer + plan.staging,
       measured.before + train::early_optimizer(s, plan),
       measured.evaluation + train::gradients_between_steps(s) + plan.optimizer + plan.staging});
  return memory_rows(
      s,
      fmt::format("{} at most{}: {}, {} of the {} {} (tried just now){}", bytes_text(most),
                  s.device.is_cpu() ? "" : " on " + s.device.str(), train::describe(plan),
                  passing_text(plan), longest_text(s), bytes_text(activations),
                  s.device.is_cpu() ? ", and the program" : ""),
      most);
}

std::string time_text(double seconds) {
  if (seconds < 120) return fmt::format("{:.0f} s", seconds);
  return seconds < 7200 ? fmt::format("{:.0f} min", seconds / 60)
                        : fmt::format("{:.1f} h", seconds / 3600);
}

/// What the files tell: parameters, samples and tokens.
std::vector<Row> sizes_of_run(const train::Session& s) {
  double all = 0;
  double trained = 0;
  for (const auto& parameter : s.model->module().parameters())
    all += static_cast<double>(parameter.numel());
  for (const auto& [name, linear] : nn::linears(s.model->module()))
    if (linear->packed()) all += static_cast<double>(linear->in() * linear->out());
  for (const auto& [name, parameter] : trainable(*s.model))
    trained += static_cast<double>(parameter.numel());
  const auto shares = token_shares(s);
  const auto samples = s.data->split("train").size();
  const auto steps = train::steps_of(s.config.train, samples);
  const double tokens =
      static_cast<double>(steps * s.config.train.global_batch) * shares.mean_tokens;
  return {{"parameters", fmt::format("{:.0f}, of which {:.0f} train ({:.2f} %)", all, trained,
                                     100 * trained / all)},
          {"samples", fmt::format("{} in train, {} in validation", samples,
                                  s.data->split("validation").size())},
          {"tokens",
           fmt::format("{:.0f} over {} steps; {:.0f} per sample, {:.0f} % of rows are targets",
                       tokens, steps, shares.mean_tokens, 100 * shares.trained)}};
}

/// Forward and backward passes on every rank at the same time: over the longest samples for the
/// memory, over typical ones for the time.
Measured measure(train::Session& s) {
  auto longest = train::longest_first(s);
  longest.resize(
      static_cast<std::size_t>(std::min(train::samples_of_pass(s), std::ssize(longest))));
  auto rows = longest;  // what a strategy prepares, it prepares for these alone
  for (const auto row : train::cost_rows(s))
    if (std::ranges::find(rows, row) == rows.end()) rows.push_back(row);
  auto context = train::SessionContext::rehearsal(
      s, {{"train", rows}, {"validation", train::evaluated_rows(s)}});
  Measured measured;
  measured.before = train::most_held(s, [&] { s.strategies->begin(*s.model, context.run()); });
  // the first pass also loads kernels and starts threads
  train::rehearse(s, std::span(longest).first(1));
  train::drop_gradients(trainable(*s.model));  // as every step does
  device::release_unused(s.device);            // which the pass would take without being seen to
  measured.longest = train::rehearse(s, longest);
  train::drop_gradients(trainable(*s.model));
  measured.evaluation = train::most_held(s, [&] { train::try_evaluation(s); });
  measured.step = train::step_seconds(train::measure_cost(s), s);
  std::vector<NamedTensor> ever_trained;
  for (const auto& group : s.strategies->groups(*s.model))
    ever_trained.insert(ever_trained.end(), group.parameters.begin(), group.parameters.end());
  measured.frozen = train::frozen_parts(s, ever_trained);
  return measured;
}

std::string measured_time(const train::Session& s, double step) {
  const auto steps = train::steps_of(s.config.train, s.data->split("train").size());
  const bool has_cache = s.config.train.prefix_cache != config::HiddenCache::off;
  return fmt::format(
      "about {} on {} rank{}, {:.3g} s per step, measured on typical samples; without "
      "evaluations{}",
      time_text(static_cast<double>(steps) * step), s.mesh.world.size(),
      s.mesh.world.size() == 1 ? "" : "s", step,
      has_cache ? " and the savings of train.prefix_cache" : "");
}

/// What `train` compares or needs and a plan does not.
std::vector<Row> not_checked(const train::Session& s) {
  std::vector<Row> rows;
  if (!s.config.adapter.empty() && !train::base_of_adapter(s.config.adapter).empty())
    rows.push_back(
        {"not compared",
         fmt::format("{} with the weights of {}, which are not read here: `attune train` and "
                     "--measure refuse it if it belongs to another base model",
                     s.config.adapter, s.config.model.path)});
  if (s.config.parallel.shard != config::Shard::none && train::ranks_of_copy(s) == 1)
    rows.push_back({"not shared out",
                    "parallel.shard has no effect on one rank: run `mpirun -n 4 attune check`, or "
                    "set slurm.nodes and slurm.tasks_per_node, to see what it saves"});
  if (s.config.parallel.offload != config::Offload::none && !train::computes_on_accelerator(s))
    rows.push_back(
        {"not offloaded",
         "parallel.offload has no effect on CPUs, whose optimizer is on the host anyway"});
  if (s.config.parallel.wants_accelerator() && device::count() == 0)
    rows.push_back({"device", fmt::format("parallel.device is \"{}\", but this machine has no GPU: "
                                          "the machine that trains needs one",
                                          s.config.parallel.device)});
  return rows;
}

void print_plan(const train::Session& s) {
  auto table = sizes_of_run(s);
  table.insert(table.begin(), {"ESTIMATE", ""});
  for (auto& row : planned_memory(s)) table.push_back(std::move(row));
  table.push_back({"time", "is measured with --measure, which runs a few passes"});
  for (auto& row : not_checked(s)) table.push_back(std::move(row));
  std::cout << text_table(table);
}

void print_measured(train::Session& s) {
  const auto measured = measure(s);
  if (!s.mesh.world.root()) return;
  auto table = sizes_of_run(s);
  table.insert(table.begin(), {"ESTIMATE", ""});
  for (auto& row : measured_memory(s, measured)) table.push_back(std::move(row));
  table.push_back({"time", measured_time(s, measured.step)});
  if (measured.frozen > 0 && s.config.train.prefix_cache == config::HiddenCache::off &&
      train::sees_again(s))
    table.push_back({"frozen", fmt::format("{} have the same output in every epoch: "
                                           "train.prefix_cache = \"float32\" computes it once",
                                           train::describe_parts(measured.frozen, *s.model))});
  std::cout << text_table(table);
}

int check(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("run", options::value<std::string>()->required(), "run file");
  description.add_options()("override",
                            options::value<std::vector<std::string>>()->default_value({}, ""),
                            "override of a run file setting: section.key=value");
  description.add_options()(
      "measure", options::bool_switch(),
      "load the weights and run passes to measure actual memory use and time");
  description.add_options()(
      "here", options::bool_switch(),
      "on the ranks it is started on: multiply matrices, sum over the ranks, write to the run's "
      "disk, and name slow ranks; loads no model");
  const auto values = parse(check_command, arguments, description, {{"run", 1}, {"override", -1}});
  if (!values) return static_cast<int>(ExitCode::done);
  const bool measures = (*values)["measure"].as<bool>();
  return on_ranks([&](const Comm& comm) {
    const auto run = train::open_run((*values)["run"].as<std::string>(),
                                     (*values)["override"].as<std::vector<std::string>>(), comm);
    const bool here = (*values)["here"].as<bool>();
    if (measures || here) place_ranks(run.config.parallel, comm);
    if (here) {
      refuse_idle_gpus(run.config, comm);
      preflight(run.config, run.mesh);
    }
    if (here && !measures) return static_cast<int>(ExitCode::done);
    auto session = measures ? train::Session::open(run.config, run.mesh)
                            : train::Session::plan(run.config, run.mesh);
    comm.agree(
        [&] { train::check_metric_options(session.config, train::declared_metrics(session)); });
    if (measures) on_root(comm, [&] { train::check_publishable(session); });
    if (comm.root()) print_settings(run.config);
    if (measures)
      print_measured(session);
    else if (comm.root())
      print_plan(session);
    if (comm.root()) std::cout << "\n" << run.config.file.string() << " is in order\n";
    comm.barrier();
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace

const Command check_command{
    "check", "run.toml [section.key=value...] [--measure] [--here]",
    "checks a run file, shows every setting with its origin, and estimates the run's memory",
    check};

}  // namespace attune::program
