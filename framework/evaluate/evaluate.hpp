// Loss and the metrics that fit the kind, over a split shared out to the ranks.
#pragma once
#include <attune/comm.hpp>
#include <attune/dataset.hpp>
#include <c10/core/Device.h>

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "data/store.hpp"
#include "nn/strategies.hpp"

namespace attune {

/// "loss": mean over targets (for a value: the mean squared error). "perplexity": decoders whose loss is the
/// cross-entropy. "accuracy": share of targets that the output
/// got right. "f1": several labels a sample, micro-averaged. "pearson": correlation of values with outputs.
using Metrics = std::map<std::string, double>;

struct EvaluateOn {
  const Split& split;
  std::int64_t samples;      // from its start
  std::int64_t micro_batch;  // samples per forward pass
  std::function<bool()> give_up = [] { return false; };  // asked before every forward pass
  std::int64_t* without_target = nullptr;                // becomes the number of samples that have none, and are left out
};

/// Collective; the model is put in inference mode and back. The same numbers on every rank, and on any number of them: batches are the
/// same, and their losses are added in their order. Absent when a rank gave up.
std::optional<Metrics> evaluate(Model& model, Strategies& strategies, const Dataset& dataset, const EvaluateOn& on, const Comm& comm, c10::Device device);

/// The split's size, or `samples` when that is smaller and not 0.
std::int64_t samples_to_evaluate(const Split& split, std::int64_t samples);

/// A small table: a row per metric, base, tuned and the change.
std::string comparison_table(const Metrics& base, const Metrics& tuned);

/// The text of evaluation.json.
std::string evaluation_json(const std::string& split, std::int64_t samples, const Metrics& base, const Metrics& tuned);

/// The batch's tensors on that device.
void move_to(Batch& batch, c10::Device device);

}  // namespace attune
