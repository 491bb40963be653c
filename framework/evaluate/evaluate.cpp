#include "evaluate/evaluate.hpp"

#include <attune/error.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "data/sampler.hpp"
#include "parallel/mpi.hpp"
#include "parallel/watchdog.hpp"

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

std::optional<Metrics> evaluate(Model& model, Strategy& strategy, const Dataset& dataset, const EvaluateOn& on, const Comm& comm, c10::Device device) {
  const InferenceMode inference(model.module());
  std::vector<std::int64_t> rows(static_cast<std::size_t>(on.samples)), batches((rows.size() + on.micro_batch - 1) / on.micro_batch);
  std::iota(rows.begin(), rows.end(), 0);
  std::iota(batches.begin(), batches.end(), 0);

  enum { gave_up, count, correct, losses };  // then a loss for each batch, 0 for those of other ranks: adding zeros is exact
  std::vector<double> sums(losses + batches.size(), 0.0);
  for (const auto batch_index : Sampler::share(batches, comm.rank(), comm.size())) {
    if (on.give_up()) {
      sums[gave_up] = 1;
      break;
    }
    const auto first = static_cast<std::size_t>(batch_index * on.micro_batch);
    auto batch = load_batch(on.split, dataset, std::span(rows).subspan(first, std::min<std::size_t>(on.micro_batch, rows.size() - first)));
    move_to(batch, device);
    const auto part = strategy.loss(model, batch);
    sums[losses + batch_index] = part.sum.item<double>();
    sums[count] += static_cast<double>(part.count);
    sums[correct] += static_cast<double>(part.correct);
    parallel::report_phase("evaluation", batch_index + 1);
  }
  parallel::sum_in_place(sums, comm);
  if (sums[gave_up] > 0) return std::nullopt;
  if (sums[count] == 0) fail("evaluation: none of the {} samples has a target: check the data's loss_mask and dataset.train_on", on.samples);

  const double loss = std::accumulate(sums.begin() + losses, sums.end(), 0.0);
  Metrics metrics{{"loss", loss / sums[count]}, {"accuracy", sums[correct] / sums[count]}};
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
