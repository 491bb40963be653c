#include <attune/adapter.hpp>
#include <attune/error.hpp>
#include <attune/preference.hpp>
#include <torch/torch.h>

namespace attune {

PairLogProbabilities pair_log_probabilities(Model& model, const Batch& batch) {
  if (!batch.columns.contains("chosen")) fail("the loss compares two answers to a prompt: set dataset.plugin = \"preference\", and prepare the data as that");
  const auto samples = sample_log_probabilities(model, batch);
  const auto every_other = [](const at::Tensor& tensor, std::int64_t first) { return tensor.slice(0, first, {}, 2); };
  return {every_other(samples.sums, 0), every_other(samples.sums, 1), every_other(samples.counts, 0), every_other(samples.counts, 1)};
}

PairLogProbabilities base_pair_log_probabilities(Model& model, const Batch& batch, const std::string& strategy) {
  if (!nn::trains_only_adapters(model))
    fail("strategy '{}' compares with the base, whose own weights this run trains: list it after an adapter such as 'lora', which leaves them as they are", strategy);
  const torch::NoGradGuard no_grad;
  const BaseAlone base(model);
  return pair_log_probabilities(model, batch);
}

}  // namespace attune
