// attune plan: what a run would hold, send and take on more ranks than there are here, and the
// cheapest of them. From the headers of the model's files and a machine file; it trains nothing.
#include "plan/forecast.hpp"

#include <fmt/ranges.h>

#include <charconv>
#include <iostream>
#include <nlohmann/json.hpp>

#include "command.hpp"
#include "core/files.hpp"
#include "core/names.hpp"
#include "option_table.hpp"
#include "parallel/mpi.hpp"
#include "ranks.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;
using plan::Forecast;
using plan::Machine;

std::vector<std::int64_t> parse_ranks(const std::string& text) {
  std::vector<std::int64_t> ranks;
  for (std::string_view rest = text; ranks.empty() || !rest.empty();) {
    const auto part = rest.substr(0, rest.find(','));
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), number);
    constexpr std::int64_t most = 1'000'000;
    if (error != std::errc() || end != part.data() + part.size() || number < 1 || number > most)
      fail("attune plan: --ranks {}: '{}' is no number of ranks: give for example 1,8,64", text,
           part);
    ranks.push_back(number);
    rest.remove_prefix(std::min(rest.size(), part.size() + 1));
  }
  return ranks;
}

/// One rank, a node, and more of them where the machine file knows the links between them.
std::vector<std::int64_t> usual_ranks(const Machine& machine) {
  std::vector<std::int64_t> ranks{1};
  if (machine.node.ranks > 1) ranks.push_back(machine.node.ranks);
  if (machine.between.sums > 0)
    for (const int nodes : {2, 4, 8}) ranks.push_back(nodes * machine.node.ranks);
  return ranks;
}

const char* name(config::Shard shard) {
  switch (shard) {
    case config::Shard::optimizer: return "optimizer";
    case config::Shard::gradients: return "gradients";
    case config::Shard::weights: return "weights";
    case config::Shard::none: break;
  }
  return "none";
}

std::string bytes_text(double bytes) { return human_bytes(bytes); }
std::string bytes_text(std::size_t bytes) { return human_bytes(static_cast<double>(bytes)); }

std::string seconds_text(double seconds) {
  if (seconds == 0) return "0";
  if (seconds < 1) return fmt::format("{:.3g} ms", 1000 * seconds);
  if (seconds < 600) return fmt::format("{:.3g} s", seconds);
  return seconds < 7200 ? fmt::format("{:.0f} min", seconds / 60)
                        : fmt::format("{:.1f} h", seconds / 3600);
}

void print_memory(const std::vector<Forecast>& all, const Machine& machine) {
  std::vector<Row> rows{{"RANKS", "NODES", "SHARD", "WEIGHTS", "GRADIENTS", "OPTIMIZER",
                         "CHECKPOINT", "ACTIVATIONS", "A RANK", "A NODE", "FITS"}};
  for (const auto& one : all) {
    if (!one.memory) continue;
    const auto& parts = one.memory->parts;
    rows.push_back({std::to_string(one.ranks), std::to_string(one.nodes), name(one.shard),
                    bytes_text(parts.weights), bytes_text(parts.gradients + parts.sums),
                    bytes_text(parts.optimizer + parts.on_host), bytes_text(parts.staging),
                    bytes_text(one.memory->activations + parts.other), bytes_text(one.memory->most),
                    bytes_text(one.memory->of_node), one.fits(machine) ? "yes" : "no"});
  }
  std::cout << "MEMORY of a rank, by part\n" << text_table(rows) << "\n";
}

void print_time(const std::vector<Forecast>& all) {
  std::vector<Row> rows{{"RANKS", "SHARD", "SENT", "PASSES", "UPDATE", "SUMS", "EXPOSED", "DATA",
                         "STEP", "RUN", "NODE-HOURS"}};
  for (const auto& one : all) {
    if (!one.refusal.empty()) continue;
    Row row{std::to_string(one.ranks), name(one.shard), bytes_text(one.sent)};
    if (const auto& time = one.time)
      row.insert(row.end(),
                 {seconds_text(time->passes), seconds_text(time->update), seconds_text(time->sums),
                  seconds_text(time->exposed), seconds_text(time->data), seconds_text(time->all()),
                  seconds_text(one.seconds), fmt::format("{:.3g}", one.node_hours())});
    else
      row.insert(row.end(), {"?", "?", "?", "?", "?", "?", "?", "?"});
    rows.push_back(std::move(row));
  }
  std::cout << "A STEP of a rank, on average\n" << text_table(rows) << "\n";
}

/// "8 ranks on 2 nodes with parallel.shard = "optimizer": 1.2 h, 2.4 node-hours"
std::string sentence_of(const Forecast& one) {
  return fmt::format("{} rank{} on {} node{} with parallel.shard = \"{}\": {}, {:.3g} node-hours",
                     one.ranks, one.ranks == 1 ? "" : "s", one.nodes, one.nodes == 1 ? "" : "s",
                     name(one.shard), seconds_text(one.seconds), one.node_hours());
}

/// Each reason once, with all that it is for.
void print_refusals(const std::vector<Forecast>& all) {
  std::vector<std::pair<std::string, std::vector<std::string>>> reasons;
  for (const auto& one : all) {
    if (one.refusal.empty()) continue;
    auto reason = std::ranges::find(reasons, one.refusal, [](const auto& r) { return r.first; });
    if (reason == reasons.end()) reason = reasons.insert(reasons.end(), {one.refusal, {}});
    reason->second.push_back(fmt::format("{} {}", one.ranks, name(one.shard)));
  }
  for (const auto& [reason, rows] : reasons)
    std::cout << fmt::format("left out: {}: {}\n", joined(rows), reason);
}

std::string why_none(const std::vector<Forecast>& all, const Machine& machine) {
  const auto any = [&](auto&& holds) { return std::ranges::any_of(all, holds); };
  if (!any([](const Forecast& one) { return one.refusal.empty(); })) return "all were left out";
  if (!any([](const Forecast& one) { return one.memory.has_value(); }))
    return "memory and time depend on the values of the weights, which are not read here: `attune "
           "check --measure` tells them";
  if (!any([&](const Forecast& one) { return one.fits(machine); }))
    return "none of these fits: use more nodes, a smaller micro-batch, bfloat16, or a strategy "
           "that trains less";
  return "which is cheapest is unknown: the machine file does not tell all rates that this takes";
}

void print_choice(const std::vector<Forecast>& all, const Machine& machine) {
  const auto* cheap = plan::cheapest(all, machine);
  if (cheap) {
    std::cout << "cheapest that fits: " << sentence_of(*cheap) << "\n";
    const auto* fast = cheap;
    for (const auto& one : all)
      if (one.time && one.fits(machine) && one.seconds < fast->seconds) fast = &one;
    if (fast != cheap) std::cout << "fastest that fits:  " << sentence_of(*fast) << "\n";
  } else {
    std::cout << why_none(all, machine) << "\n";
  }
}

nlohmann::json to_json(const Forecast& one, const Machine& machine) {
  nlohmann::json json{{"ranks", one.ranks}, {"nodes", one.nodes}, {"shard", name(one.shard)}};
  if (!one.refusal.empty()) {
    json["refusal"] = one.refusal;
    return json;
  }
  json["sent"] = one.sent;
  json["micro_batches"] = one.micro_batches;
  if (const auto& memory = one.memory) {
    const auto& parts = memory->parts;
    json["memory"] = {{"weights", parts.weights},
                      {"gradients", parts.gradients + parts.sums},
                      {"optimizer", parts.optimizer + parts.on_host},
                      {"checkpoint", parts.staging},
                      {"activations", memory->activations + parts.other},
                      {"rank", memory->most},
                      {"node", memory->of_node}};
    json["fits"] = one.fits(machine);
  }
  if (const auto& time = one.time) {
    json["seconds"] = {{"passes", time->passes},   {"update", time->update}, {"sums", time->sums},
                       {"exposed", time->exposed}, {"data", time->data},     {"step", time->all()},
                       {"run", one.seconds}};
    json["node_hours"] = one.node_hours();
  }
  return json;
}

/// In bytes and seconds, of a rank and of a step.
void print_json(const std::vector<Forecast>& all, const Machine& machine) {
  nlohmann::json json{
      {"version", 1}, {"machine", machine.name}, {"plans", nlohmann::json::array()}};
  for (const auto& one : all) json["plans"].push_back(to_json(one, machine));
  const auto* cheap = plan::cheapest(all, machine);
  json["cheapest"] = cheap ? nlohmann::json(cheap - all.data()) : nlohmann::json();
  std::cout << json.dump(1) << "\n";
}

/// A run as it would be on that machine, planned by this process alone.
config::RunConfig on_machine(config::RunConfig run, const Machine& machine) {
  run.asked.nodes = run.asked.tasks_per_node = 1;
  run.asked.gpus_per_node = machine.has_gpus() ? machine.node.ranks : 0;
  run.parallel.shard = config::Shard::none;
  if (!machine.has_gpus() && run.parallel.wants_accelerator())
    fail(
        "parallel.device is \"{}\", but {} has no GPUs by its machine file: set "
        "parallel.device=cpu, or [node] gpu_memory",
        run.parallel.device, machine.name);
  if (machine.has_gpus() && run.parallel.device == "cpu")
    fail(
        "parallel.device is \"cpu\", but the machine file of {} has the rates of GPUs: set "
        "parallel.device=auto, or measure its CPUs",
        machine.name);
  if (!machine.has_gpus()) run.parallel.device = "cpu";
  return run;
}

int plan_run(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("run", options::value<std::string>()->required(), "run file");
  description.add_options()("override",
                            options::value<std::vector<std::string>>()->default_value({}, ""),
                            "override of a run file setting: section.key=value");
  description.add_options()(
      "machine", options::value<std::string>()->required(),
      "machine file (`attune doctor --write FILE` makes one), or a name in slurm/machines")(
      "ranks", options::value<std::string>(),
      "numbers of ranks: 1,8,64; by default one rank, one node, and more nodes")(
      "json", options::bool_switch(), "print JSON, in bytes and seconds");
  const auto values = parse(plan_command, arguments, description, {{"run", 1}, {"override", -1}});
  if (!values) return static_cast<int>(ExitCode::done);
  return on_ranks([&](const Comm& comm) {
    comm.agree([&] {
      if (comm.size() > 1)
        fail("attune plan is one process: start it without mpirun, and give --ranks {}",
             comm.size());
    });
    const auto machine = plan::read_machine((*values)["machine"].as<std::string>());
    const auto ranks = values->count("ranks") ? parse_ranks((*values)["ranks"].as<std::string>())
                                              : usual_ranks(machine);
    const auto run = train::open_run((*values)["run"].as<std::string>(),
                                     (*values)["override"].as<std::vector<std::string>>(), comm);
    auto session = train::Session::plan(on_machine(run.config, machine), run.mesh);
    const auto all = plan::forecast(session, machine, ranks);
    if ((*values)["json"].as<bool>()) {
      print_json(all, machine);
      return static_cast<int>(ExitCode::done);
    }
    std::cout << fmt::format("{} on {}\n", run.config.file.string(), machine.name);
    if (!machine.source.empty()) std::cout << machine.source << "\n";
    std::cout << "\n";
    print_memory(all, machine);
    print_time(all);
    print_refusals(all);
    print_choice(all, machine);
    std::cout << "A model of a run that was not made: docs/plan.md says how it was compared.\n";
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace

const Command plan_command{
    "plan", "run.toml [section.key=value...] --machine FILE [--ranks 1,8,64] [--json]",
    "predicts memory, traffic and time of a run on many ranks, and the cheapest that fits",
    plan_run};

}  // namespace attune::program
