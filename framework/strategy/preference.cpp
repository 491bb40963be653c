#include <attune/adapter.hpp>
#include <attune/device.hpp>
#include <attune/error.hpp>
#include <attune/preference.hpp>
#include <torch/torch.h>

#include <cstring>
#include <functional>
#include <string_view>

namespace attune {
namespace {

struct Kept {
  std::uint64_t key;
  double log_probability;
};

void check_pairs(const Batch& batch) {
  if (!batch.columns.contains("chosen"))
    fail(
        "the loss compares two answers to a prompt: set dataset.plugin = \"preference\", and "
        "prepare the data with it");
}

/// Of every sample, by its tokens and which of them are trained on. That two of a million share one
/// has odds of 1 to 30 million.
std::vector<std::uint64_t> sample_keys(const Batch& batch) {
  const at::Tensor content =
      at::stack({batch.on_host(batch.tokens), batch.on_host(batch.targets)}, 1).contiguous();
  const auto* bytes = static_cast<const char*>(content.const_data_ptr());
  const auto row =
      content.nbytes() / static_cast<std::size_t>(std::max<std::int64_t>(1, content.size(0)));
  std::vector<std::uint64_t> keys;
  for (std::size_t sample = 0; sample + 1 < batch.starts.size(); ++sample) {
    const auto first = static_cast<std::size_t>(batch.starts[sample]) * row;
    const auto end = static_cast<std::size_t>(batch.starts[sample + 1]) * row;
    keys.push_back(std::hash<std::string_view>{}({bytes + first, end - first}));
  }
  return keys;
}

/// Pairs both of whose answers have a target, int64.
at::Tensor answered_pairs(const Batch& batch) {
  const auto counts = targets_by_sample(batch);
  std::vector<std::int64_t> pairs;
  for (std::size_t pair = 0; 2 * pair + 1 < counts.size(); ++pair)
    if (counts[2 * pair] > 0 && counts[2 * pair + 1] > 0)
      pairs.push_back(static_cast<std::int64_t>(pair));
  return on_device(torch::tensor(pairs, at::kLong), batch.tokens.device());
}

}  // namespace

PairLogProbabilities pair_log_probabilities(Model& model, const ForwardContext& context) {
  check_pairs(context.batch());
  const auto samples = sample_log_probabilities(model, context);
  const auto answered = answered_pairs(context.batch());
  const auto every_other = [&](const at::Tensor& tensor, std::int64_t first) {
    return tensor.slice(0, first, {}, 2).index_select(0, answered);
  };
  return {every_other(samples.sums, 0), every_other(samples.sums, 1),
          every_other(samples.counts, 0), every_other(samples.counts, 1)};
}

PairLogProbabilities base_pair_log_probabilities(Model& model, const ForwardContext& context,
                                                 const std::string& strategy) {
  if (!nn::trains_only_adapters(model))
    fail(
        "strategy '{}' compares with the base model, but this run trains its weights: list it "
        "after an adapter such as 'lora', which keeps them frozen",
        strategy);
  const torch::NoGradGuard no_grad;
  return pair_log_probabilities(model, context.base_alone());
}

void report_rewards(Loss& loss, const at::Tensor& chosen, const at::Tensor& rejected) {
  const at::Tensor margins = chosen.detach() - rejected.detach();
  loss.report("rewards/chosen", chosen);
  loss.report("rewards/rejected", rejected);
  loss.report("rewards/margins", margins);
  loss.report("rewards/accuracies", margins.gt(0));
}

std::vector<Metric> reward_metrics(std::vector<Metric> inner, const std::string& loss,
                                   const std::string& accuracy) {
  std::erase_if(inner, [](const Metric& metric) { return metric.needs != Needs::sums; });
  for (auto& metric : inner) {
    if (metric.name == "loss") {
      metric.unit = "";
      metric.doc = loss;
    }
    if (metric.name == "accuracy") metric.doc = accuracy;
  }
  inner.push_back(metrics::scalar("rewards/chosen", "rewards/chosen", Better::larger, "",
                                  "mean reward of chosen answers"));
  inner.push_back(metrics::scalar("rewards/rejected", "rewards/rejected", Better::smaller, "",
                                  "mean reward of rejected answers"));
  inner.push_back(
      metrics::scalar("rewards/margins", "rewards/margins", Better::larger, "",
                      "mean difference between the rewards of chosen and rejected answers"));
  return inner;
}

void BaseLogProbabilities::begin(Model& model, RunContext& run) {
  if (nn::trains_only_adapters(model)) return;
  const torch::NoGradGuard no_grad;
  const auto comm = run.comm;
  std::string mine;  // the ranks share the batches
  int index = 0;
  run.data.for_each_own_batch([&](const ForwardContext& context) {
    const auto& batch = context.batch();
    check_pairs(batch);
    if (index++ % comm.size() != comm.rank()) return;
    const at::Tensor sums = sample_log_probabilities(model, context).sums.to(at::kCPU, at::kDouble);
    const auto keys = sample_keys(batch);
    for (std::int64_t sample = 0; sample < batch.samples(); ++sample) {
      const Kept kept{keys[static_cast<std::size_t>(sample)], sums[sample].item<double>()};
      mine.append(reinterpret_cast<const char*>(&kept), sizeof kept);
    }
  });
  for (const auto& part : comm.gather(mine))
    for (std::size_t at = 0; at < part.size(); at += sizeof(Kept)) {
      Kept kept;
      std::memcpy(&kept, part.data() + at, sizeof kept);
      kept_[kept.key] = kept.log_probability;
    }
}

PairLogProbabilities BaseLogProbabilities::of(Model& model, const ForwardContext& context,
                                              const std::string& strategy) const {
  if (kept_.empty()) return base_pair_log_probabilities(model, context, strategy);
  const auto& batch = context.batch();
  std::vector<double> sums;
  for (const auto key : sample_keys(batch)) {
    const auto found = kept_.find(key);
    if (found == kept_.end())
      fail(
          "strategy '{}' stores the base's log-probabilities only for the run's own pairs: to use "
          "other pairs, list it after an adapter such as 'lora'",
          strategy);
    sums.push_back(found->second);
  }
  const at::Tensor all =
      on_device(torch::tensor(sums, at::kDouble).to(at::kFloat), batch.tokens.device());
  const at::Tensor answered = answered_pairs(batch);
  return {all.slice(0, 0, {}, 2).index_select(0, answered),
          all.slice(0, 1, {}, 2).index_select(0, answered),
          {},
          {}};
}

}  // namespace attune
