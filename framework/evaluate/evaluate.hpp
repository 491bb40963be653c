// The metrics of a run, over a split shared out to the ranks.
#pragma once
#include <attune/dataset.hpp>
#include <attune/mesh.hpp>
#include <c10/core/Device.h>

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "data/store.hpp"
#include "strategy/strategies.hpp"

namespace attune {

/// What the dataset plugin declares, by one sample of the split: nothing is computed. Error:
/// check_declarations.
std::vector<Metric> data_metrics(const Dataset& dataset, const Split& split,
                                 const ModelSpec& model);

/// Values by the names of declared metrics.
using Metrics = std::map<std::string, double>;

struct EvaluateOn {
  const Split& split;
  std::int64_t samples;                                  // from its start
  std::int64_t micro_batch;                              // samples per forward pass
  std::function<bool()> give_up = [] { return false; };  // asked before every forward pass
  bool base_alone = false;                               // without what strategies added
  // becomes the number of samples that have none, and are left out
  std::int64_t* without_target = nullptr;
};

/// Collective. Batches are divided over the data-parallel group. The same numbers on every rank,
/// and on any number of them: batches are the same, and their losses are added in their order.
/// Absent when a rank of the run gave up.
std::optional<Metrics> evaluate(Model& model, Strategies& strategies, const Dataset& dataset,
                                const EvaluateOn& on, const Mesh& mesh, c10::Device device);

/// The first of the metrics that compares outputs with targets; null when none does.
const Metric* needs_outputs(const std::vector<Metric>& metrics);
/// Error: such metrics, and a loss that gives no outputs.
[[noreturn]] void refuse_without_outputs(const std::vector<Metric>& metrics);

/// The split's size, or `samples` when that is smaller and not 0.
std::int64_t samples_to_evaluate(const Split& split, std::int64_t samples);

/// What a run's evaluations found, and what was measured.
struct Comparison {
  std::vector<Metric> declared;
  Metrics base;
  Metrics tuned;
};

/// A small table: a row per metric, base, tuned and the change, which way is better, and the unit.
std::string comparison_table(const Comparison& comparison);

/// The batch's tensors on that device.
void move_to(Batch& batch, c10::Device device);

}  // namespace attune
