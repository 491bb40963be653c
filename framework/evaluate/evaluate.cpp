#include "evaluate/evaluate.hpp"

#include <attune/error.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
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

/// What the metrics are made of: sums over targets, which ranks add up.
struct Sums {
  double loss = 0;
  std::int64_t count = 0, correct = 0;
  std::int64_t labels = 0, given = 0, predicted = 0, hit = 0;  // several labels a sample: decisions; labels that hold, are predicted, both
  std::int64_t values = 0;                                     // targets y and outputs x
  double x = 0, y = 0, xx = 0, yy = 0, xy = 0;

  void add(const Loss& loss_of_batch, const at::Tensor& targets) {
    loss += loss_of_batch.sum.item<double>();
    count += loss_of_batch.count;
    correct += loss_of_batch.correct;
    if (!loss_of_batch.outputs.defined()) return;
    if (targets.dim() == 2) {
      add_labels(loss_of_batch.outputs > 0.5, targets > 0.5);
    } else {
      add_values(loss_of_batch.outputs.to(at::kDouble), targets.to(at::kDouble));
    }
  }

  Sums over(const Comm& comm) const {
    return {comm.sum(loss),  comm.sum(count), comm.sum(correct), comm.sum(labels), comm.sum(given), comm.sum(predicted), comm.sum(hit),
            comm.sum(values), comm.sum(x),     comm.sum(y),       comm.sum(xx),     comm.sum(yy),    comm.sum(xy)};
  }

  /// Micro-averaged: 2 hits / (predicted + given), over all labels of all samples.
  double f1() const { return predicted + given == 0 ? 0 : 2 * static_cast<double>(hit) / static_cast<double>(predicted + given); }

  /// 0 where one side does not vary.
  double pearson() const {
    const auto n = static_cast<double>(values);
    const double spread = std::max(0.0, n * xx - x * x) * std::max(0.0, n * yy - y * y);
    return spread > 0 ? (n * xy - x * y) / std::sqrt(spread) : 0;
  }

 private:
  void add_labels(const at::Tensor& outputs, const at::Tensor& targets) {
    labels += targets.numel();
    given += targets.sum().item<std::int64_t>();
    predicted += outputs.sum().item<std::int64_t>();
    hit += at::logical_and(outputs, targets).sum().item<std::int64_t>();
  }

  void add_values(const at::Tensor& outputs, const at::Tensor& targets) {
    values += targets.numel();
    x += outputs.sum().item<double>();
    y += targets.sum().item<double>();
    xx += (outputs * outputs).sum().item<double>();
    yy += (targets * targets).sum().item<double>();
    xy += (outputs * targets).sum().item<double>();
  }
};

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

  Sums mine_sums;
  const auto size = static_cast<std::size_t>(on.micro_batch);
  for (std::size_t from = 0; from < mine.size(); from += size) {
    auto batch = load_batch(on.split, dataset, mine.subspan(from, std::min(size, mine.size() - from)));
    move_to(batch, device);
    mine_sums.add(strategy.loss(model, batch), batch.targets);
  }
  const Sums sums = mine_sums.over(comm);
  if (sums.count == 0) fail("evaluation: none of the {} samples has a target: check the data's loss_mask and dataset.train_on", on.samples);

  Metrics metrics{{"loss", sums.loss / static_cast<double>(sums.count)}};
  if (sums.values > 0) {
    metrics["pearson"] = sums.pearson();
  } else {
    metrics["accuracy"] = static_cast<double>(sums.correct) / static_cast<double>(sums.count);
  }
  if (sums.labels > 0) metrics["f1"] = sums.f1();
  if (model.spec().task == Task::next_token) metrics["perplexity"] = std::exp(metrics["loss"]);
  return metrics;
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
