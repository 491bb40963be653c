// What losses on pairs of answers share: their log-probabilities under the model and under its
// frozen base.
#pragma once
#include <attune/api.hpp>
#include <attune/strategy.hpp>

#include <cstdint>
#include <string>
#include <unordered_map>

ATTUNE_API_BEGIN
namespace attune {

/// Of each pair both of whose answers have a token that is trained on, [pairs]: log p(answer |
/// prompt), and the number of the answer's tokens. Pairs whose answer was cut away whole are left
/// out: they have no preference to learn.
struct PairLogProbabilities {
  // differentiable
  at::Tensor chosen;
  at::Tensor rejected;
  // int64
  at::Tensor chosen_tokens;
  at::Tensor rejected_tokens;
};

/// Of a batch of dataset 'preference', whose samples are the chosen and the rejected answer of each
/// pair in turn. Error for other data.
PairLogProbabilities pair_log_probabilities(Model& model, const ForwardContext& context);

/// The same under the base: adapters off, no gradients. `strategy` names the one that asks, in the
/// error when the run trains the base's own weights.
PairLogProbabilities base_pair_log_probabilities(Model& model, const ForwardContext& context,
                                                 const std::string& strategy);

/// Reports what a loss on pairs rewards, under the names that TRL gives them: "rewards/chosen",
/// "rewards/rejected", "rewards/margins" (chosen - rejected) and "rewards/accuracies" (the share of
/// pairs whose margin is above zero). Both float [pairs].
void report_rewards(Loss& loss, const at::Tensor& chosen, const at::Tensor& rejected);

/// What an evaluation of such a loss measures: "loss", "accuracy" and the rewards. accuracy: what
/// Loss::correct counts.
std::vector<Metric> reward_metrics(std::vector<Metric> inner, const std::string& loss,
                                   const std::string& accuracy);

/// The same also where the run trains the base's own weights: then they are computed before the
/// first step and kept, one number a sample, so that there is never a second model in memory.
class BaseLogProbabilities {
 public:
  /// In Strategy::begin.
  void begin(Model& model, RunContext& run);
  /// Error when they were kept, and not those of this batch.
  PairLogProbabilities of(Model& model, const ForwardContext& context,
                          const std::string& strategy) const;

 private:
  // log p(answer | prompt) by the hash of the sample's tokens
  std::unordered_map<std::uint64_t, double> kept_;
};

}  // namespace attune
ATTUNE_API_END
