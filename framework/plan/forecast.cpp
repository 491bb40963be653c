#include "plan/forecast.hpp"

#include <attune/error.hpp>
#include <attune/parameter.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "parallel/wide_gradients.hpp"
#include "train/cost.hpp"
#include "train/plan.hpp"
#include "train/schedule.hpp"
#include "train/updater.hpp"

namespace attune::plan {
namespace {

using config::Shard;
using train::Session;

/// Of all that is trained.
struct TrainedBytes {
  double weights = 0;
  double gradients = 0;
  double state = 0;
};

TrainedBytes trained_bytes(const Session& session) {
  TrainedBytes bytes;
  for (const auto& [name, parameter] : session.strategies->trained()) {
    bytes.weights += static_cast<double>(parameter.nbytes());
    bytes.gradients += static_cast<double>(parallel::gradient_bytes(parameter));
  }
  const auto optimizer = session.config.optimizer.build<Optimizer>();
  bytes.state = static_cast<double>(train::state_bytes(*optimizer, *session.model));
  return bytes;
}

/// Ranks by what they share.
struct Groups {
  double ranks;    // of the run
  double of_node;  // of them
  double copies;
  double of_copy;  // that share one out; 1 with Shard::none
  double of_copy_on_node;
};

Groups groups_of(const Session& session) {
  const auto ranks = static_cast<double>(train::ranks_of_run(session));
  const auto of_node = static_cast<double>(train::ranks_of_node(session));
  const auto of_copy = static_cast<double>(train::ranks_of_copy(session));
  return {ranks, of_node, of_copy > 1 ? ranks / of_copy : 1, of_copy, std::min(of_node, of_copy)};
}

/// Bytes that a rank sends in a step: docs/scale.md.
struct Sent {
  double gradients = 0;       // among the ranks of a copy; of all, where nothing is shared out
  double weights = 0;         // among them
  double between_copies = 0;  // gradients

  double all() const { return gradients + weights + between_copies; }
};

double ring(double ranks) { return (ranks - 1) / ranks; }

/// passes: of a step, in which gradients are sent.
Sent sent_by(Shard shard, const Groups& groups, const TrainedBytes& bytes, double passes) {
  if (groups.of_copy == 1) return {2 * bytes.gradients * ring(groups.ranks), 0, 0};
  const double here = groups.of_copy_on_node;
  const double weights = shard == Shard::weights
                             ? bytes.weights * (1 - here / groups.of_copy) / here
                             : bytes.weights * ring(groups.of_copy);
  return {passes * bytes.gradients * ring(groups.of_copy), weights,
          2 * bytes.gradients / groups.of_copy * ring(groups.copies)};
}

/// How a run adds gradients.
struct Summing {
  bool in_every_pass = false;
  bool during_pass = false;  // rather than after it
};

Summing summing_of(const Session& session, const Groups& groups, Shard shard) {
  if (session.config.parallel.reproducible) return {};  // along a tree, after the last pass
  const bool is_shared_out = groups.of_copy > 1;
  return {is_shared_out && shard >= Shard::gradients,
          is_shared_out || train::sums_during_pass(session)};
}

/// Seconds of work, by the machine's rates.
class Clock {
 public:
  Clock(const Machine& machine, const Session& session, const Groups& groups)
      : machine_(machine), session_(session), groups_(groups) {}

  std::int64_t ranks_of_node() const { return static_cast<std::int64_t>(groups_.of_node); }

  /// Of a rank, when so many on its node compute at the same time. added: bytes of gradients that
  /// are added to those of other passes or ranks.
  double pass(const nn::Operations& work, double added, std::int64_t ranks) const {
    // What an operator makes: its lines come from memory and go there, and are read twice, by the
    // next operator and by the backward pass.
    constexpr double times = 4;
    return work.products / rate(product_rate(), ranks) +
           times * (work.made + added) / rate(&Rates::memory, ranks) +
           work.calls * machine_.training.operation;
  }

  /// Weights and state are read and written, gradients are read for their norm and once more.
  double update(const TrainedBytes& bytes) const {
    const double moved = 2 * (bytes.weights + bytes.state + bytes.gradients) / groups_.of_copy;
    return moved / rate(&Rates::memory, ranks_of_node());
  }

  /// Of what ranks of one group send around it, in so many messages each. Absent if the machine
  /// file does not tell.
  std::optional<double> around(double sent, double ranks, double messages) const {
    if (sent == 0) return 0;
    const bool leaves_node = ranks > groups_.of_node;
    const double within =
        groups_.of_node > 1 ? machine_.of_rank(&Rates::sums, ranks_of_node()) : INFINITY;
    const double between = leaves_node ? machine_.between.sums : INFINITY;
    return over(sent, std::min(within, between), messages, leaves_node);
  }
  /// Of what each rank of a node sends to other copies, all at the same time.
  std::optional<double> between_copies(double sent, double messages) const {
    if (sent == 0) return 0;
    const bool leaves_node = groups_.ranks > groups_.of_node;
    const double slowest = leaves_node ? machine_.between.sums / groups_.of_copy_on_node
                                       : machine_.of_rank(&Rates::sums, ranks_of_node());
    return over(sent, slowest, messages, leaves_node);
  }

 private:
  std::optional<double> over(double sent, double rate, double messages, bool leaves_node) const {
    if (rate <= 0) return std::nullopt;
    const double message = leaves_node ? machine_.between.message : machine_.training.message;
    return sent / rate + messages * message;
  }
  double Rates::* product_rate() const {
    const bool is_narrow = session_.config.model.dtype == config::FloatType::bfloat16 ||
                           session_.config.train.precision == config::FloatType::bfloat16;
    return is_narrow && machine_.alone.bfloat16 > 0 ? &Rates::bfloat16 : &Rates::float32;
  }
  double rate(double Rates::* of, std::int64_t ranks) const {
    return machine_.training.reached * machine_.of_rank(of, ranks);
  }

  const Machine& machine_;
  const Session& session_;
  Groups groups_;
};

/// Of two passes over different lengths. They do not depend on ranks.
struct TwoPasses {
  std::vector<std::int64_t> few;
  std::vector<std::int64_t> many;
  nn::Operations of_few;
  nn::Operations of_many;
};

/// Absent if a strategy needs values.
std::optional<TwoPasses> two_passes(Session& session) {
  TwoPasses passes;
  passes.few = train::typical_rows(session, 1);
  const auto micro_batch = train::samples_of_pass(session);
  passes.many = micro_batch > 1 ? train::typical_rows(session, micro_batch)
                                : std::vector{train::longest_first(session).front()};
  const auto of_few = train::operations_of_pass(session, passes.few);
  const auto of_many = train::operations_of_pass(session, passes.many);
  if (!of_few || !of_many) return std::nullopt;
  passes.of_few = *of_few;
  passes.of_many = *of_many;
  return passes;
}

/// Whether gradients are added to those of other passes or ranks.
bool adds_gradients(const Session& session, const Groups& groups) {
  const auto& train = session.config.train;
  return groups.ranks > 1 || train.micro_tokens > 0 || train.micro_batch < train.global_batch;
}

/// On average over steps. Without passes, only their number.
train::StepLoad load_of(const Session& session, const Clock& clock, const Groups& groups,
                        const TrainedBytes& bytes, bool together,
                        const std::optional<TwoPasses>& passes) {
  train::Cost cost;
  train::Pace pace{together, 1};
  if (passes) {
    const double added = adds_gradients(session, groups) ? bytes.gradients : 0;
    const double of_many = clock.pass(passes->of_many, added, 1);
    pace.crowding = clock.pass(passes->of_many, added, clock.ranks_of_node()) / of_many;
    cost = train::cost_through(session, {passes->few, clock.pass(passes->of_few, added, 1)},
                               {passes->many, of_many});
  }
  return train::step_load(cost, session, static_cast<int>(groups.ranks), pace);
}

/// Of the samples of a step, about.
double data_bytes(const Session& session) {
  std::int64_t samples = 0;
  for (const auto& split : session.data->splits()) samples += session.data->split(split).size();
  std::error_code unknown;
  const auto bytes = std::filesystem::file_size(session.config.dataset.path, unknown);
  return unknown ? 0
                 : static_cast<double>(bytes) / static_cast<double>(samples) *
                       static_cast<double>(session.config.train.global_batch);
}

double buckets_of(double bytes) {
  constexpr double bucket = 25 << 20;
  return std::ceil(bytes / bucket);
}

/// Absent if the machine file does not tell enough.
std::optional<StepTime> time_of(const Session& session, const Machine& machine, const Clock& clock,
                                const Groups& groups, const TrainedBytes& bytes,
                                const train::StepLoad& load, const Sent& sent,
                                const Summing& summing) {
  const bool is_shared_out = groups.of_copy > 1;
  const double members = is_shared_out ? groups.of_copy : groups.ranks;
  const double hops = members - 1;
  const double passes = summing.in_every_pass ? load.passes : 1;
  const auto gradients =
      clock.around(sent.gradients, members,
                   passes * buckets_of(bytes.gradients) * (is_shared_out ? hops : 2 * hops));
  const auto weights = clock.around(sent.weights, members, buckets_of(bytes.weights) * hops);
  const auto copies = clock.between_copies(
      sent.between_copies, buckets_of(bytes.gradients / members) * 2 * (groups.copies - 1));
  if (!gradients || !weights || !copies) return std::nullopt;
  StepTime time;
  time.passes = load.seconds;
  time.update = clock.update(bytes);
  time.sums = *gradients + *weights + *copies;
  // of a pass about two thirds go backwards: two products of three
  const double backward = 2.0 / 3 * time.passes * passes / load.passes;
  const double hidden = summing.during_pass ? machine.training.hidden : 0;
  time.exposed = time.sums - hidden * std::min(*gradients, backward);
  if (machine.training.disk > 0)
    time.data = std::max(0.0, data_bytes(session) / machine.training.disk - time.all());
  return time;
}

void add_traffic_and_time(Forecast& forecast, const Session& session, const Machine& machine,
                          const std::optional<TwoPasses>& passes) {
  const auto groups = groups_of(session);
  const Clock clock(machine, session, groups);
  const auto bytes = trained_bytes(session);
  const auto summing = summing_of(session, groups, forecast.shard);
  const auto load = load_of(session, clock, groups, bytes, summing.in_every_pass, passes);
  const auto sent = sent_by(forecast.shard, groups, bytes, summing.in_every_pass ? load.passes : 1);
  forecast.micro_batches = load.passes;
  forecast.sent = sent.all();
  if (passes) forecast.time = time_of(session, machine, clock, groups, bytes, load, sent, summing);
  if (!forecast.time) return;
  const auto steps = train::steps_of(session.config.train, session.data->split("train").size());
  forecast.seconds = static_cast<double>(steps) * forecast.time->all();
}

std::optional<RankMemory> memory_of(const Session& session, const Machine& machine) {
  const auto most = train::most_planned(session);
  if (!most) return std::nullopt;
  // Of the host: huge pages that are not full, and memory between tensors (measured: docs/plan.md).
  constexpr double kept = 0.04;
  const auto with_kept = [](std::size_t bytes) {
    return bytes + static_cast<std::size_t>(kept * static_cast<double>(bytes));
  };
  RankMemory memory;
  memory.parts = train::plan_memory(session);
  memory.activations = *train::planned_activations(session);
  const auto program = static_cast<std::size_t>(machine.node.program);
  const auto ranks = static_cast<std::size_t>(train::ranks_of_node(session));
  if (machine.has_gpus()) {
    memory.most = *most;
    memory.of_node = ranks * (train::checkpoint_bytes(session) + memory.parts.on_host + program);
  } else {
    memory.most = with_kept(*most) + program;
    memory.of_node = train::held_on_node(session, with_kept(*most)) + ranks * program;
  }
  return memory;
}

/// passes: as two_passes().
Forecast forecast_one(Session& session, const Machine& machine, std::int64_t ranks, Shard shard,
                      const std::optional<TwoPasses>& passes) {
  Forecast forecast;
  forecast.ranks = ranks;
  forecast.shard = shard;
  const auto of_node = std::min(ranks, machine.node.ranks);
  forecast.nodes = (ranks + of_node - 1) / of_node;
  try {
    if (ranks % of_node != 0)
      fail("a node has {} ranks: give a multiple of them", machine.node.ranks);
    session.config.asked.nodes = forecast.nodes;
    session.config.asked.tasks_per_node = of_node;
    session.config.parallel.shard = shard;
    if (shard != Shard::none) train::check_copies(session.config.parallel, ranks);
    train::check_shard(session);
    add_traffic_and_time(forecast, session, machine, passes);
    if (!passes) return forecast;
    train::plan_pass(session);
    forecast.memory = memory_of(session, machine);
  } catch (const Error& error) {
    forecast.refusal = error.what();
  }
  return forecast;
}

}  // namespace

bool Forecast::fits(const Machine& machine) const {
  constexpr double usable = 0.95;  // the rest is the system's
  if (!memory) return false;
  const bool fits_gpu =
      !machine.has_gpus() || static_cast<double>(memory->most) <= usable * machine.node.gpu_memory;
  return fits_gpu && static_cast<double>(memory->of_node) <= usable * machine.node.memory;
}

std::vector<Forecast> forecast(Session& planned, const Machine& machine,
                               const std::vector<std::int64_t>& ranks) {
  if (planned.needs_values)
    fail(
        "a strategy needs the values of the weights to prepare the model, which a plan does not "
        "read: `attune check --measure` tells what the run takes on the ranks that it is started "
        "on");
  const auto passes = planned.planned.pass ? two_passes(planned) : std::nullopt;
  std::vector<Forecast> all;
  for (const auto each : ranks)
    for (const auto shard : {Shard::none, Shard::optimizer, Shard::gradients, Shard::weights}) {
      if (each == 1 && shard != Shard::none) continue;  // nothing is shared out
      all.push_back(forecast_one(planned, machine, each, shard, passes));
    }
  return all;
}

const Forecast* cheapest(const std::vector<Forecast>& all, const Machine& machine) {
  const Forecast* best = nullptr;
  const auto price = [](const Forecast& f) { return std::pair(f.node_hours(), f.memory->of_node); };
  for (const auto& each : all)
    if (each.time && each.fits(machine) && (!best || price(each) < price(*best))) best = &each;
  return best;
}

}  // namespace attune::plan
