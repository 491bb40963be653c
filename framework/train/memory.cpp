#include "train/memory.hpp"

#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <fstream>
#include <numeric>

#include "checkpoint/writer.hpp"
#include "core/files.hpp"
#include "core/out_of_memory.hpp"
#include "core/process.hpp"
#include "core/stopwatch.hpp"
#include "data/loader.hpp"
#include "device/device.hpp"
#include "parallel/gradient_tree.hpp"
#include "parallel/scattered_sum.hpp"
#include "parallel/wide_gradients.hpp"
#include "train/frozen_base.hpp"
#include "train/passes.hpp"
#include "train/updater.hpp"

namespace attune::train {
namespace {

std::optional<std::size_t> number_in(const std::string& file) {
  std::ifstream text(file);
  std::size_t number = 0;
  return text >> number ? std::optional(number) : std::nullopt;  // "max" is none
}

/// Slurm and containers limit memory by control group; version 2, where every level may have a
/// limit.
std::optional<std::size_t> left_in_control_group() {
  std::ifstream lines("/proc/self/cgroup");
  std::optional<std::size_t> least;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("0::")) continue;
    for (std::filesystem::path group = line.substr(3);; group = group.parent_path()) {
      const auto folder = "/sys/fs/cgroup" + group.string();
      const auto limit = number_in(folder + "/memory.max");
      const auto used = number_in(folder + "/memory.current");
      if (limit && used)
        least = std::min(least.value_or(SIZE_MAX), *limit - std::min(*limit, *used));
      if (group == group.parent_path()) break;
    }
  }
  return least;
}

// Of this process, on the host or on a device.

void reset_peak(c10::Device device) {
  if (device.is_cpu())
    std::ofstream("/proc/self/clear_refs") << "5";
  else
    device::reset_peak(device);
}

std::size_t peak(c10::Device device) {
  return device.is_cpu() ? bytes_in_line("/proc/self/status", "VmHWM")
                         : device::memory(device).peak;
}

std::size_t resident(c10::Device device) {
  return device.is_cpu() ? bytes_in_line("/proc/self/status", "VmRSS")
                         : device::memory(device).allocated;
}

/// What the run may use of what is free. A device is not shared, but its allocator cuts memory into
/// pieces.
std::size_t usable_memory(const Session& session) {
  return session.device.is_cpu() ? available_memory(session.mesh.node) * 4 / 5
                                 : device::memory(session.device).free * 9 / 10;
}

// Of a rank in a step, at most.

std::int64_t samples_of_rank(const Session& session) {
  const auto ranks = ranks_of_run(session);
  return (session.config.train.global_batch + ranks - 1) / ranks;
}

std::int64_t micro_batches(const Session& session) {
  const auto samples = samples_of_rank(session);
  const bool by_tokens = session.config.train.micro_tokens > 0;
  const auto each = by_tokens ? 1 : std::max<std::int64_t>(1, session.config.train.micro_batch);
  return (samples + each - 1) / each;
}

/// " on cuda:0 (70 of 80 GiB are in use)"
std::string place_of_memory(const Session& session) {
  if (session.device.is_cpu()) return "";
  const auto memory = device::memory(session.device);
  const auto bytes = [](std::size_t n) { return human_bytes(static_cast<double>(n)); };
  return fmt::format(" on {} ({} of {} are in use)", session.device.str(),
                     bytes(memory.total - memory.free), bytes(memory.total));
}

}  // namespace

MemoryPlan plan_memory(Model& model, const Optimizer& optimizer) {
  MemoryPlan plan;
  for (const auto& parameter : model.module().parameters()) plan.weights += parameter.nbytes();
  for (const auto& [name, linear] : nn::linears(model.module()))
    if (linear->packed()) plan.weights += linear->packed()->bytes();
  plan.optimizer = state_bytes(optimizer, model);
  plan.staging = plan.optimizer;
  for (const auto& [name, parameter] : trainable(model)) {
    plan.gradients += parallel::gradient_bytes(parameter);
    plan.staging += parameter.nbytes();
  }
  return plan;
}

namespace {

parallel::ShardPlan shard_plan(const Session& session) {
  return train::shard_plan(*session.config.optimizer.build<Optimizer>(),
                           session.strategies->trained(), ranks_of_copy(session));
}

/// Whether a rank's last pass of a step gives its gradients up.
bool scatters(const Session& session) {
  return ranks_of_copy(session) > 1 && !session.config.parallel.reproducible;
}

/// Whether every pass does.
bool scatters_in_every_pass(const Session& session) {
  const auto what = sharded_of(session.config);
  return scatters(session) && (what >= parallel::Sharded::gradients || micro_batches(session) == 1);
}

std::size_t trained_bytes(const Session& session) {
  std::size_t bytes = 0;
  for (const auto& [name, parameter] : session.strategies->trained()) bytes += parameter.nbytes();
  return bytes;
}

/// Of a checkpoint: values, moments or masters, of which the latter are float32.
std::size_t largest_saved(const Session& session) {
  std::size_t bytes = 0;
  for (const auto& [name, parameter] : session.strategies->trained())
    bytes = std::max(
        {bytes, parameter.nbytes(), sizeof(float) * static_cast<std::size_t>(parameter.numel())});
  return bytes;
}

/// Copies of trained parameters and their gradients on the host.
std::size_t travelling_bytes(const Session& session) {
  std::size_t bytes = trained_bytes(session);
  for (const auto& [name, parameter] : session.strategies->trained())
    bytes += parallel::gradient_bytes(parameter);
  return bytes;
}

/// Of a rank that shares out nothing, and writes whole checkpoints.
MemoryPlan unshared_plan(const Session& session) {
  auto plan = plan_memory(*session.model, *session.config.optimizer.build<Optimizer>());
  if (ranks_of_node(session) > 1 && !computes_on_accelerator(session)) {
    const bool shares_none = !session.is_planned && !session.memory->obstacle().empty();
    if (holds_trained_once(session) && !shares_none) plan.trained_shared = trained_bytes(session);
    plan.shared = session.is_planned || plan.trained_shared > 0
                      ? bytes_to_hold_once(*session.model) + plan.trained_shared
                      : bytes_held_once(*session.model);
  }
  if (session.config.parallel.reproducible)
    plan.sums = plan.gradients * static_cast<std::size_t>(parallel::GradientTree::most_sums(
                                     micro_batches(session), ranks_of_run(session)));
  plan.other = session.planned.other;
  return plan;
}

/// What one of the ranks that hold a copy has of it.
void share_out(MemoryPlan& plan, const Session& session) {
  const auto optimizer = session.config.optimizer.build<Optimizer>();
  const auto bytes = shard_bytes(*optimizer, session.strategies->trained(),
                                 block_prefixes(*session.model), shard_plan(session));
  const auto whole = plan.optimizer / static_cast<std::size_t>(ranks_of_run(session));
  plan.staging = plan.staging - std::min(plan.staging, whole) + bytes.state;
  plan.optimizer = bytes.state;
  plan.shards = ranks_of_copy(session);
  plan.shards_gradients = scatters_in_every_pass(session);
  if (plan.shards_gradients) plan.gradients = bytes.gradients;
}

/// With what checkpoints are written from, wherever that is.
MemoryPlan plan_of_rank(const Session& session) {
  auto plan = unshared_plan(session);
  plan.staging /= static_cast<std::size_t>(ranks_of_run(session));  // each rank writes its share
  if (ranks_of_copy(session) > 1) share_out(plan, session);
  plan.staging += most_of_part(plan.staging, largest_saved(session));
  return plan;
}

}  // namespace

MemoryPlan plan_memory(const Session& session) {
  auto plan = plan_of_rank(session);
  if (computes_on_accelerator(session)) plan.staging = 0;  // it is the host's
  if (offloads_optimizer(session)) {
    const auto share = static_cast<std::size_t>(plan.shards);
    plan.on_host = plan.optimizer + travelling_bytes(session) / share;
    plan.optimizer = 0;
  }
  return plan;
}

std::size_t checkpoint_bytes(const Session& session) { return plan_of_rank(session).staging; }

std::size_t held_on_node(const Session& session, std::size_t most) {
  const auto plan = plan_memory(session);
  const auto ranks = static_cast<std::size_t>(ranks_of_node(session));
  const auto of_copy = static_cast<std::size_t>(ranks_of_copy(session));
  return ranks * (most - std::min(most, plan.shared)) + plan.shared +
         (copies_on_node(ranks, of_copy) - 1) * plan.trained_shared;
}

/// Copies are on consecutive ranks.
std::size_t copies_on_node(std::size_t ranks_of_node, std::size_t ranks_of_copy) {
  const bool are_aligned = ranks_of_node % ranks_of_copy == 0 || ranks_of_copy % ranks_of_node == 0;
  const auto rounded_up = [&](std::size_t ranks) {
    return (ranks + ranks_of_copy - 1) / ranks_of_copy;
  };
  return are_aligned ? rounded_up(ranks_of_node) : 1 + rounded_up(ranks_of_node - 1);
}

std::string describe(const MemoryPlan& plan) {
  const auto bytes = [](std::size_t n) { return human_bytes(static_cast<double>(n)); };
  const auto other = plan.other > 0 ? fmt::format(", other tensors {}", bytes(plan.other)) : "";
  const auto staging =
      plan.staging > 0 ? fmt::format(", copy for checkpoints {}", bytes(plan.staging)) : "";
  const auto sums = plan.sums > 0 ? fmt::format(", reproducible sums {}", bytes(plan.sums)) : "";
  const auto shared =
      plan.shared > 0 ? fmt::format(" ({} of them once per node)", bytes(plan.shared)) : "";
  const auto shard = plan.shards > 1 ? fmt::format(" (one of {} shards)", plan.shards) : "";
  const auto optimizer =
      plan.on_host > 0 ? bytes(plan.on_host) + " on the host" : bytes(plan.optimizer);
  return fmt::format("weights {}{}, gradients {}{}{}, optimizer {}{}{}{}", bytes(plan.weights),
                     shared, bytes(plan.gradients), plan.shards_gradients ? shard : "", sums,
                     optimizer, shard, staging, other);
}

std::size_t available_memory(const Comm& node) {
  const auto free = bytes_in_line("/proc/meminfo", "MemAvailable");
  return std::min(free, left_in_control_group().value_or(free)) /
         static_cast<std::size_t>(node.size());
}

void tell_out_of_memory(const Session& session, std::int64_t micro_batch, std::int64_t step) {
  const auto plan = plan_memory(session);
  fail(
      "step {}: rank {} ran out of memory{}; it holds {}, and the activations of {} sample{}; "
      "lower "
      "train.micro_batch (or set it to \"auto\") or the samples' length, {}{}or {}",
      step + 1, session.mesh.world.rank(), place_of_memory(session), describe(plan), micro_batch,
      micro_batch == 1 ? "" : "s",
      ranks_of_run(session) > 1 && !plan.shards_gradients ? "set parallel.shard to \"gradients\", "
                                                          : "",
      session.device.is_cpu() || plan.on_host > 0 ? "" : "set parallel.offload to \"optimizer\", ",
      session.device.is_cpu() ? "use fewer ranks per node" : "train fewer parameters");
}

std::vector<std::int64_t> longest_first(const Session& session) {
  return longest_first(session.data->split("train"));
}

std::vector<std::int64_t> longest_first(const Split& split) {
  const auto lengths = sample_lengths(split);
  std::vector<std::int64_t> rows(lengths.size());
  std::iota(rows.begin(), rows.end(), 0);
  std::sort(rows.begin(), rows.end(), [&](auto a, auto b) { return lengths[a] > lengths[b]; });
  return rows;
}

bool holds_gradients(const Session& session) {
  if (session.config.parallel.reproducible) return false;  // which takes them after each pass
  if (scatters(session)) return micro_batches(session) > 1 && !scatters_in_every_pass(session);
  return micro_batches(session) > 1 || ranks_of_run(session) > 1;
}

std::shared_ptr<parallel::ScatterRehearsal> rehearse_scatter(const Session& session) {
  if (!scatters(session)) return nullptr;
  const bool holds_sums = scatters_in_every_pass(session) && micro_batches(session) > 1;
  return std::make_shared<parallel::ScatterRehearsal>(session.strategies->trained(),
                                                      shard_plan(session), holds_sums);
}

std::optional<std::size_t> planned_activations(const Session& session) {
  if (!session.planned.pass) return std::nullopt;
  const auto most = session.planned.pass->most;
  return most - std::min(most, plan_memory(session).gradients);
}

std::size_t early_optimizer(const Session& session, const MemoryPlan& plan) {
  return computes_on_accelerator(session) ? plan.optimizer : 0;
}

std::optional<std::size_t> most_planned(const Session& session) {
  const auto activations = planned_activations(session);
  if (!activations) return std::nullopt;
  const auto plan = plan_memory(session);
  return std::max({plan.held() + *activations,
                   session.planned.before_first_step + early_optimizer(session, plan),
                   plan.held() - plan.gradients - plan.sums + gradients_between_steps(session) +
                       session.planned.evaluation});
}

bool sums_during_pass(const Session& session) {
  const auto is_wide = [](const NamedTensor& parameter) {
    return parallel::has_wide_gradient(parameter.second);
  };
  return !session.config.train.recompute &&
         std::ranges::none_of(trainable(*session.model), is_wide);
}

std::size_t gradients_between_steps(const Session& session) {
  const bool has_buckets = ranks_of_run(session) > 1 && ranks_of_copy(session) == 1 &&
                           !session.config.parallel.reproducible;
  return has_buckets && sums_during_pass(session) ? plan_memory(session).gradients : 0;
}

HostMemory host_memory(const Session& session) {
  const auto copies = static_cast<std::size_t>(session.config.parallel.replicas);
  const auto what = sharded_of(session.config);
  const auto plan = unshared_plan(session);
  if (computes_on_accelerator(session)) {
    const auto offloaded =
        offloads_optimizer(session) ? plan.optimizer + travelling_bytes(session) : 0;
    const bool is_divided = what != parallel::Sharded::nothing;
    return {plan.staging + offloaded, 0, 0, is_divided ? offloaded : 0, copies};
  }
  std::size_t divided = 0;
  if (what != parallel::Sharded::nothing) divided += plan.optimizer;
  const bool stay_whole = session.config.parallel.reproducible;  // as partial sums
  if (what >= parallel::Sharded::gradients && !stay_whole) divided += plan.gradients;
  const auto trained = what >= parallel::Sharded::weights ? trained_bytes(session) : 0;
  return {plan.held(), bytes_to_hold_once(*session.model), trained, divided, copies};
}

std::size_t most_held(const Session& session, const std::function<void()>& work) {
  device::synchronise(session.device);
  reset_peak(session.device);
  work();
  device::synchronise(session.device);
  return peak(session.device);
}

Rehearsal rehearse(Session& session, std::span<const std::int64_t> rows) {
  const auto context =
      training_pass(session, load_batch(session.data->split("train"), *session.dataset, rows), 0);
  Rehearsal rehearsal;
  device::synchronise(session.device);
  rehearsal.resident = resident(session.device);
  reset_peak(session.device);
  if (holds_gradients(session)) nn::hold_gradients(*session.model);
  const Stopwatch watch;
  const auto scatter = rehearse_scatter(session);
  session.strategies->loss(*session.model, context).sum.backward();
  device::synchronise(session.device);
  rehearsal.seconds = watch.seconds();
  rehearsal.took = std::max(peak(session.device), rehearsal.resident) - rehearsal.resident;
  return rehearsal;
}

void drop_gradients(const std::vector<NamedTensor>& parameters) {
  for (const auto& [name, parameter] : parameters) parameter.mutable_grad() = at::Tensor();
}

std::int64_t find_micro_batch(Session& session) {
  // What comes later: what a checkpoint is copied to, and on the host the optimizer's state.
  const auto plan = plan_memory(session);
  const auto later = plan.optimizer - early_optimizer(session, plan) + plan.staging;
  device::release_unused(session.device);
  const auto may_take = usable_memory(session);
  const auto before = resident(session.device);
  const auto rows = longest_first(session);
  const auto most = samples_of_rank(session);
  std::int64_t fits = 0;
  std::size_t previous = 0;
  for (std::int64_t samples = 1; samples <= most; samples *= 2) {
    std::size_t took = 0;
    try {
      const auto rehearsal =
          rehearse(session, std::span(rows).first(static_cast<std::size_t>(samples)));
      took = rehearsal.resident + rehearsal.took -
             std::min(before, rehearsal.resident + rehearsal.took);
    } catch (const std::exception& error) {
      if (!is_out_of_memory(error)) throw;
      break;
    }
    if (took + later > may_take) break;
    fits = samples;
    // twice the samples, twice what grows with them
    if (2 * took - std::min(took, previous) + later > may_take) break;
    previous = took;
  }
  drop_gradients(trainable(*session.model));
  device::release_unused(session.device);
  if (!session.device.is_cpu()) reset_peak(session.device);  // of what was only tried
  const auto agreed = -session.mesh.world.max(-fits);
  session.mesh.world.agree([&] {
    if (agreed == 0)
      fail(
          "train.micro_batch: a single sample does not fit into memory: this rank may use {} and "
          "already holds {}; use {}a smaller model, shorter samples or a strategy with fewer "
          "trainable parameters",
          human_bytes(static_cast<double>(may_take)), describe(plan),
          session.device.is_cpu() ? "fewer ranks per node, " : "");
  });
  return agreed;
}

}  // namespace attune::train
