// What losses on pairs of answers share: their log-probabilities under the model and under its frozen base.
#pragma once
#include <attune/strategy.hpp>

#include <cstdint>
#include <string>
#include <unordered_map>

namespace attune {

/// Of each pair both of whose answers have a token that is trained on, [pairs]: log p(answer | prompt), and the number of the answer's tokens. Pairs whose
/// answer was cut away whole are left out: they have no preference to learn.
struct PairLogProbabilities {
  at::Tensor chosen, rejected;              // differentiable
  at::Tensor chosen_tokens, rejected_tokens;  // int64
};

/// Of a batch of dataset 'preference', whose samples are the chosen and the rejected answer of each pair in turn. Error for other data.
PairLogProbabilities pair_log_probabilities(Model& model, const Batch& batch);

/// The same under the base: adapters off, no gradients. `strategy` names the one that asks, in the error when the run trains the base's own weights.
PairLogProbabilities base_pair_log_probabilities(Model& model, const Batch& batch, const std::string& strategy);

/// The same also where the run trains the base's own weights: then they are computed before the first step and kept, one number a sample, so that there is
/// never a second model in memory.
class BaseLogProbabilities {
 public:
  /// In Strategy::begin.
  void begin(Model& model, Surroundings& run);
  /// Error when they were kept, and not those of this batch.
  PairLogProbabilities of(Model& model, const Batch& batch, const std::string& strategy) const;

 private:
  std::unordered_map<std::uint64_t, double> kept_;  // log p(answer | prompt) by the hash of the sample's tokens
};

}  // namespace attune
