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

  double loss = 0;
  std::int64_t count = 0, correct = 0;
  const auto size = static_cast<std::size_t>(on.micro_batch);
  for (std::size_t from = 0; from < mine.size(); from += size) {
    auto batch = load_batch(on.split, dataset, mine.subspan(from, std::min(size, mine.size() - from)));
    move_to(batch, device);
    const auto part = strategy.loss(model, batch);
    loss += part.sum.item<double>();
    count += part.count;
    correct += part.correct;
  }
  loss = comm.sum(loss);
  count = comm.sum(count);
  correct = comm.sum(correct);
  if (count == 0) fail("evaluation: none of the {} samples has a target: check the data's loss_mask and dataset.train_on", on.samples);

  Metrics metrics{{"loss", loss / static_cast<double>(count)}, {"accuracy", static_cast<double>(correct) / static_cast<double>(count)}};
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
