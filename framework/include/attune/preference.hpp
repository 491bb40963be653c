// Helpers for losses on preference pairs: log-probabilities of the answers under the model and
// under its frozen base.
#pragma once
#include <attune/api.hpp>
#include <attune/strategy.hpp>

#include <cstdint>
#include <string>
#include <unordered_map>

ATTUNE_API_BEGIN
namespace attune {

/// log p(answer | prompt) and the number of answer tokens for each pair, [pairs]. A pair is omitted
/// if either answer has no target token, for example because it was truncated away: such a pair
/// expresses no preference.
struct PairLogProbabilities {
  // differentiable
  at::Tensor chosen;
  at::Tensor rejected;
  // int64
  at::Tensor chosen_tokens;
  at::Tensor rejected_tokens;
};

/// Log-probabilities for a batch of dataset 'preference', in which the chosen and the rejected
/// answer of each pair alternate. Error for other data.
PairLogProbabilities pair_log_probabilities(Model& model, const ForwardContext& context);

/// The same under the base model: without adapters and gradients. Error if the run trains the base
/// weights; `strategy` names the caller in the message.
PairLogProbabilities base_pair_log_probabilities(Model& model, const ForwardContext& context,
                                                 const std::string& strategy);

/// Reports the implicit rewards of a loss on pairs, under TRL's names: "rewards/chosen",
/// "rewards/rejected", "rewards/margins" (chosen - rejected) and "rewards/accuracies" (fraction of
/// pairs with a positive margin). Both arguments are floating-point [pairs].
void report_rewards(Loss& loss, const at::Tensor& chosen, const at::Tensor& rejected);

/// Metrics for a loss on pairs: "loss", "accuracy" and the rewards. `loss` and `accuracy` describe
/// these two metrics.
std::vector<Metric> reward_metrics(std::vector<Metric> inner, const std::string& loss,
                                   const std::string& accuracy);

/// Base log-probabilities that are also available if the run trains the base weights. In that case
/// they are computed before the first step and stored, one number per sample, which avoids a second
/// model in memory.
class BaseLogProbabilities {
 public:
  /// Call it in Strategy::begin.
  void begin(Model& model, RunContext& run);
  /// Returns the base log-probabilities of a batch. Error if stored values lack a sample of this
  /// batch.
  PairLogProbabilities of(Model& model, const ForwardContext& context,
                          const std::string& strategy) const;

 private:
  // log p(answer | prompt), keyed by the hash of the sample's tokens
  std::unordered_map<std::uint64_t, double> kept_;
};

}  // namespace attune
ATTUNE_API_END
