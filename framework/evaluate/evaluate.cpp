#include "evaluate/evaluate.hpp"

#include <attune/error.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <array>
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

/// What the metrics are made of: sums over targets, in double, where counts are exact.
enum Sum {
  loss, count, correct, other_loss, without_target,
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
  tally[other_loss] = !part.is_cross_entropy;
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
  if (task == Task::next_token && t[other_loss] == 0) metrics["perplexity"] = std::exp(metrics["loss"]);
  return metrics;
}

}  // namespace

void move_to(Batch& batch, c10::Device device) {
  if (device.is_cpu()) return;
  for (auto* tensor : {&batch.tokens, &batch.positions, &batch.targets, &batch.hidden})
    if (tensor->defined()) *tensor = tensor->to(device);
  for (auto& [name, column] : batch.columns) column = column.to(device);
}

std::int64_t samples_to_evaluate(const Split& split, std::int64_t samples) {
  return samples == 0 ? split.size() : std::min(samples, split.size());
}

std::optional<Metrics> evaluate(Model& model, Strategies& strategies, const Dataset& dataset, const EvaluateOn& on, const Comm& comm, c10::Device device) {
  const InferenceMode inference(model.module());
  std::vector<std::int64_t> rows(static_cast<std::size_t>(on.samples)), batches((rows.size() + on.micro_batch - 1) / on.micro_batch);
  std::iota(rows.begin(), rows.end(), 0);
  std::iota(batches.begin(), batches.end(), 0);

  // A tally for each batch, zeros for those of other ranks: adding zeros is exact, and so the sum does not depend on who computed what.
  std::vector<double> tallies(batches.size() * sums + 1, 0.0);
  double& gave_up = tallies.back();
  for (const auto batch_index : Sampler::share(batches, comm.rank(), comm.size())) {
    if (on.give_up()) {
      gave_up = 1;
      break;
    }
    const auto first = static_cast<std::size_t>(batch_index * on.micro_batch);
    auto batch = load_batch(on.split, dataset, std::span(rows).subspan(first, std::min<std::size_t>(on.micro_batch, rows.size() - first)));
    const auto left_out = rows_without_target(batch).size();
    move_to(batch, device);
    auto part = tally_of(strategies.loss(model, batch), batch.targets);
    part[without_target] = static_cast<double>(left_out);
    std::copy(part.begin(), part.end(), tallies.begin() + batch_index * sums);
    parallel::report_phase("evaluation", batch_index + 1);
  }
  parallel::sum_in_place(tallies, comm);
  if (gave_up > 0) return std::nullopt;
  Tally tally{};
  for (std::size_t i = 0; i < batches.size() * sums; ++i) tally[i % sums] += tallies[i];
  if (on.without_target) *on.without_target = static_cast<std::int64_t>(tally[without_target]);
  if (tally[count] == 0) fail("evaluation: none of the {} samples has a target: check the data's loss_mask, dataset.train_on and dataset.max_length", on.samples);
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
