// Evaluation of a run's metrics on a split, divided over the ranks.
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

/// Metrics declared by the dataset plugin, based on one sample of the split, without a forward
/// pass. Error: as check_declarations.
std::vector<Metric> data_metrics(const Dataset& dataset, const Split& split,
                                 const ModelSpec& model);

/// Values by metric name.
using Metrics = std::map<std::string, double>;

struct EvaluateOn {
  const Split& split;
  std::int64_t samples;      // number of samples from the start of the split
  std::int64_t micro_batch;  // samples per forward pass
  std::function<bool()> give_up = [] { return false; };  // called before every forward pass
  bool base_alone = false;                               // disable deltas and virtual tokens
  // receives the number of samples without a target, which are skipped
  std::int64_t* without_target = nullptr;
};

/// Evaluates a model; batches are divided over the data-parallel group. The results are the same on
/// every rank and for any number of ranks, because the batches and the order of summation are
/// fixed. Absent if give_up() returned true on any rank of the run. Collective.
std::optional<Metrics> evaluate(Model& model, Strategies& strategies, const Dataset& dataset,
                                const EvaluateOn& on, const Mesh& mesh, c10::Device device);

/// The first metric that compares outputs with targets; nullptr if there is none.
const Metric* needs_outputs(const std::vector<Metric>& metrics);
/// Throws the Error for such a metric if the loss has no outputs.
[[noreturn]] void refuse_without_outputs(const std::vector<Metric>& metrics);

/// The split's size, or `samples` if that is smaller and not 0.
std::int64_t samples_to_evaluate(const Split& split, std::int64_t samples);

/// Results of a run's evaluations, with the metric declarations.
struct Comparison {
  std::vector<Metric> declared;
  Metrics base;
  Metrics tuned;
};

/// A table with one row per metric: base, tuned, change, direction and unit.
std::string comparison_table(const Comparison& comparison);

/// Moves the batch's tensors to the device.
void move_to(Batch& batch, c10::Device device);

}  // namespace attune
