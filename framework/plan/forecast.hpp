// What a run would hold, send and take on a machine, for some number of ranks and parallel.shard:
// docs/plan.md derives it.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "plan/machine.hpp"
#include "train/memory.hpp"
#include "train/session.hpp"

namespace attune::plan {

/// Bytes of a rank.
struct RankMemory {
  train::MemoryPlan parts;
  std::size_t activations = 0;  // of a pass, with gradients being sent
  std::size_t most = 0;         // at a time, with the program
  std::size_t of_node = 0;      // of all its ranks, with what they share counted once
};

/// Seconds of a step, of the ranks that the others wait for.
struct StepTime {
  double passes = 0;
  double update = 0;
  double sums = 0;     // of gradients, and of weights
  double exposed = 0;  // of `sums`: what does not pass while ranks compute
  double data = 0;     // waiting for it

  double all() const { return passes + update + exposed + data; }
};

struct Forecast {
  std::int64_t ranks = 1;
  std::int64_t nodes = 1;
  config::Shard shard = config::Shard::none;
  std::string refusal;  // why there is no such run; the rest is then unset
  std::optional<RankMemory> memory;
  double micro_batches = 0;  // of a rank and step, on average over steps
  double sent = 0;           // bytes of a rank and step, gradients and weights
  std::optional<StepTime> time;
  double seconds = 0;  // of all steps

  double node_hours() const { return seconds * static_cast<double>(nodes) / 3600; }
  /// Into 95 % of a node's memory, and of a GPU's.
  bool fits(const Machine& machine) const;
};

/// For each number of ranks, every parallel.shard. Error if a strategy cannot prepare the model
/// without values. planned: of one process; its parallel.shard and
/// requested ranks are changed.
std::vector<Forecast> forecast(train::Session& planned, const Machine& machine,
                               const std::vector<std::int64_t>& ranks);

/// Of those that fit: the one with the fewest node-hours, among equals the one that holds least.
/// Null if none does.
const Forecast* cheapest(const std::vector<Forecast>& all, const Machine& machine);

}  // namespace attune::plan
