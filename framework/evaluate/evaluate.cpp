#include "evaluate/evaluate.hpp"

#include <attune/error.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "data/sampler.hpp"

namespace attune {
namespace {

/// Dropout off for as long as it lives.
class InferenceMode {
 public:
  explicit InferenceMode(torch::nn::Module& module) : module_(module), was_training_(module.is_training()) { module_.eval(); }
  ~InferenceMode() { module_.train(was_training_); }

 private:
  torch::nn::Module& module_;
  bool was_training_;
  torch::NoGradGuard no_grad_;
};

/// What the metrics are made of: sums over targets, in double, where counts are exact.
enum Sum {
  loss, count, correct,
  labels, given, predicted, hit,  // several labels a sample: decisions; labels that hold, that are predicted, that are both
  values, x, y, xx, yy, xy,       // outputs x and targets y that are values
  sums
};
using Tally = std::array<double, sums>;

Tally tally_of(const Loss& part, const at::Tensor& targets) {
  const auto total = [](const at::Tensor& tensor) { return tensor.sum().item<double>(); };
  Tally tally{};
  tally[loss] = part.sum.item<double>();
  tally[count] = static_cast<double>(part.count);
  tally[correct] = static_cast<double>(part.correct);
  if (!part.outputs.defined()) return tally;
  if (targets.dim() == 2) {
    const auto held = targets > 0.5, said = part.outputs > 0.5;
    tally[labels] = static_cast<double>(targets.numel());
    tally[given] = total(held);
    tally[predicted] = total(said);
    tally[hit] = total(at::logical_and(held, said));
  } else {
    const auto outputs = part.outputs.to(at::kDouble), wanted = targets.to(at::kDouble);
    tally[values] = static_cast<double>(targets.numel());
    tally[x] = total(outputs);
    tally[y] = total(wanted);
    tally[xx] = total(outputs * outputs);
    tally[yy] = total(wanted * wanted);
    tally[xy] = total(outputs * wanted);
  }
  return tally;
}

/// Pearson's correlation of outputs and targets; 0 where one side does not vary.
double correlation(const Tally& t) {
  const double spread = std::max(0.0, t[values] * t[xx] - t[x] * t[x]) * std::max(0.0, t[values] * t[yy] - t[y] * t[y]);
  return spread > 0 ? (t[values] * t[xy] - t[x] * t[y]) / std::sqrt(spread) : 0;
}

Metrics metrics_of(const Tally& t, Task task) {
  Metrics metrics{{"loss", t[loss] / t[count]}};
  if (t[values] > 0) {
    metrics["pearson"] = correlation(t);
  } else {
    metrics["accuracy"] = t[correct] / t[count];
  }
  if (t[labels] > 0) metrics["f1"] = 2 * t[hit] / std::max(1.0, t[predicted] + t[given]);
  if (task == Task::next_token) metrics["perplexity"] = std::exp(metrics["loss"]);
  return metrics;
}

}  // namespace

void move_to(Batch& batch, c10::Device device) {
  if (device.is_cpu()) return;
  for (auto* tensor : {&batch.tokens, &batch.positions, &batch.targets})
    if (tensor->defined()) *tensor = tensor->to(device);
  for (auto& [name, column] : batch.columns) column = column.to(device);
}

std::int64_t samples_to_evaluate(const Split& split, std::int64_t samples) {
  return samples == 0 ? split.size() : std::min(samples, split.size());
}

Metrics evaluate(Model& model, Strategy& strategy, const Dataset& dataset, const EvaluateOn& on, const Comm& comm, c10::Device device) {
  const InferenceMode inference(model.module());
  std::vector<std::int64_t> rows(static_cast<std::size_t>(on.samples));
  std::iota(rows.begin(), rows.end(), 0);
  const auto mine = Sampler::share(rows, comm.rank(), comm.size());

  Tally tally{};
  const auto size = static_cast<std::size_t>(on.micro_batch);
  for (std::size_t from = 0; from < mine.size(); from += size) {
    auto batch = load_batch(on.split, dataset, mine.subspan(from, std::min(size, mine.size() - from)));
    move_to(batch, device);
    const auto part = tally_of(strategy.loss(model, batch), batch.targets);
    std::transform(part.begin(), part.end(), tally.begin(), tally.begin(), std::plus());
  }
  for (auto& sum : tally) sum = comm.sum(sum);
  if (tally[count] == 0) fail("evaluation: none of the {} samples has a target: check the data's loss_mask and dataset.train_on", on.samples);
  return metrics_of(tally, model.spec().task);
}

std::string comparison_table(const Metrics& base, const Metrics& tuned) {
  std::string text = fmt::format("  {:<12} {:>10} {:>10} {:>10}\n", "", "base", "tuned", "change");
  for (const auto& [name, value] : base)
    text += fmt::format("  {:<12} {:>10.4f} {:>10.4f} {:>+10.4f}\n", name, value, tuned.at(name), tuned.at(name) - value);
  return text;
}

std::string evaluation_json(const std::string& split, std::int64_t samples, const Metrics& base, const Metrics& tuned) {
  return nlohmann::ordered_json{{"split", split}, {"samples", samples}, {"base", base}, {"tuned", tuned}}.dump(2) + "\n";
}

}  // namespace attune
