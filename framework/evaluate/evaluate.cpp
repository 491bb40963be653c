#include "evaluate/evaluate.hpp"

#include <attune/error.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>

#include "data/sampler.hpp"
#include "device/stream.hpp"
#include "parallel/mpi.hpp"
#include "parallel/watchdog.hpp"

namespace attune {
namespace {

/// Sums over the ranks; all of them are exact.
struct Counts {
  double targets = 0;
  double without_target = 0;
  double without_outputs = 0;  // batches whose loss lacks outputs that a metric needs
  double gave_up = 0;          // ranks
};

/// In one collective where every rank has its own samples.
Counts sum_over_ranks(const Counts& mine, const Mesh& mesh) {
  std::vector<double> sums{mine.targets, mine.without_target, mine.without_outputs, mine.gave_up};
  parallel::sum_in_place(sums, mesh.data);
  std::vector<double> gave_up{sums[3]};
  parallel::sum_in_place(gave_up, mesh.shard);
  return {sums[0], sums[1], sums[2], gave_up[0]};
}

/// The states of the metrics' accumulators, by batch. As numbers: of every batch its index, and of
/// every metric the length of its state and the state.
class States {
 public:
  explicit States(const std::vector<Metric>& metrics) : metrics_(metrics) {}

  void add(std::int64_t batch_index, const Measured& batch) {
    numbers_.push_back(static_cast<double>(batch_index));
    for (const auto& metric : metrics_) {
      const auto accumulator = metric.accumulator();
      accumulator->add(batch);
      const auto state = accumulator->state();
      numbers_.push_back(static_cast<double>(state.size()));
      numbers_.insert(numbers_.end(), state.begin(), state.end());
    }
  }

  /// Of the batches of the data-parallel group, merged in their order. Collective.
  Metrics values(const Comm& data) const {
    std::map<std::int64_t, std::vector<std::vector<double>>> by_batch;
    for (const auto& part : data.gather(bytes())) read(part, by_batch);
    Metrics values;
    for (std::size_t i = 0; i < metrics_.size(); ++i) {
      const auto whole = metrics_[i].accumulator();
      for (const auto& [index, states] : by_batch) whole->merge(states[i]);
      values[metrics_[i].name] = whole->value();
    }
    return values;
  }

 private:
  std::string bytes() const {
    return {reinterpret_cast<const char*>(numbers_.data()), numbers_.size() * sizeof(double)};
  }

  void read(const std::string& part,
            std::map<std::int64_t, std::vector<std::vector<double>>>& by_batch) const {
    std::vector<double> numbers(part.size() / sizeof(double));
    std::memcpy(numbers.data(), part.data(), part.size());
    for (auto at = numbers.begin(); at != numbers.end();) {
      auto& states = by_batch[static_cast<std::int64_t>(*at++)];
      for (std::size_t i = 0; i < metrics_.size(); ++i) {
        const auto length = static_cast<std::ptrdiff_t>(*at++);
        states.emplace_back(at, at + length);
        at += length;
      }
    }
  }

  const std::vector<Metric>& metrics_;
  std::vector<double> numbers_;
};

}  // namespace

void move_to(Batch& batch, c10::Device device) {
  if (device.is_cpu()) return;
  std::vector<at::Tensor*> tensors{&batch.tokens, &batch.positions, &batch.targets, &batch.hidden};
  for (auto& [name, column] : batch.columns) tensors.push_back(&column);
  std::vector<at::Tensor> on_host;
  for (const auto* tensor : tensors) on_host.push_back(*tensor);
  const auto moved = device::upload(on_host, device);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    *tensors[i] = moved[i];
    if (moved[i].defined()) batch.host_copies.emplace_back(moved[i], on_host[i]);
  }
}

std::int64_t samples_to_evaluate(const Split& split, std::int64_t samples) {
  return samples == 0 ? split.size() : std::min(samples, split.size());
}

const Metric* needs_outputs(const std::vector<Metric>& metrics) {
  const auto found = std::ranges::find(metrics, Needs::outputs, &Metric::needs);
  return found == metrics.end() ? nullptr : &*found;
}

void refuse_without_outputs(const std::vector<Metric>& metrics) {
  fail(
      "the metric '{}' compares outputs with targets, but the loss of this run's strategies "
      "provides no outputs: remove it from Strategy::metrics, or set Loss::outputs",
      needs_outputs(metrics)->name);
}

std::optional<Metrics> evaluate(Model& model, Strategies& strategies, const Dataset& dataset,
                                const EvaluateOn& on, const Mesh& mesh, c10::Device device) {
  const torch::NoGradGuard no_grad;
  std::vector<std::int64_t> rows(static_cast<std::size_t>(on.samples));
  std::vector<std::int64_t> batches((rows.size() + on.micro_batch - 1) / on.micro_batch);
  std::iota(rows.begin(), rows.end(), 0);
  std::iota(batches.begin(), batches.end(), 0);

  const auto metrics = strategies.metrics(data_metrics(dataset, on.split, model.spec()));
  const auto* compares = needs_outputs(metrics);
  States states(metrics);
  Counts counts;
  for (const auto batch_index : Sampler::share(batches, mesh.data.rank(), mesh.data.size())) {
    if (on.give_up()) {
      counts.gave_up = 1;
      break;
    }
    const auto first = static_cast<std::size_t>(batch_index * on.micro_batch);
    auto batch = load_batch(
        on.split, dataset,
        std::span(rows).subspan(first, std::min<std::size_t>(on.micro_batch, rows.size() - first)));
    counts.without_target += static_cast<double>(rows_without_target(batch).size());
    move_to(batch, device);
    ForwardContext context(std::move(batch));
    context.wants_outputs = compares != nullptr;
    if (on.base_alone) context = context.base_alone();
    const auto loss = strategies.loss(model, context);
    counts.targets += static_cast<double>(loss.count);
    if (context.wants_outputs && !loss.outputs.defined())
      ++counts.without_outputs;
    else
      states.add(batch_index, {loss, context.batch()});
    parallel::report_phase("evaluation", batch_index + 1);
  }
  counts = sum_over_ranks(counts, mesh);
  if (counts.gave_up > 0) return std::nullopt;
  if (counts.without_outputs > 0) refuse_without_outputs(metrics);
  if (on.without_target) *on.without_target = static_cast<std::int64_t>(counts.without_target);
  if (counts.targets == 0)
    fail(
        "evaluation: none of the {} samples has a target: check the data's loss_mask, "
        "dataset.train_on and dataset.max_length",
        on.samples);
  return states.values(mesh.data);
}

std::vector<Metric> data_metrics(const Dataset& dataset, const Split& split,
                                 const ModelSpec& model) {
  const std::int64_t first[] = {0};
  const auto example = load_batch(split, dataset, first);
  auto metrics = dataset.metrics({example, model});
  check_declarations(metrics, "the dataset plugin");
  return metrics;
}

std::string comparison_table(const Comparison& c) {
  std::size_t width = 12;
  for (const auto& [name, value] : c.base) width = std::max(width, name.size());
  std::string text =
      fmt::format("  {:<{}} {:>10} {:>10} {:>10}\n", "", width, "base", "tuned", "change");
  for (const auto& [name, base] : c.base) {
    const auto tuned = c.tuned.find(name);
    if (tuned == c.tuned.end()) continue;
    text += fmt::format("  {:<{}} {:>10.4f} {:>10.4f} {:>+10.4f}", name, width, base, tuned->second,
                        tuned->second - base);
    if (const auto* metric = find_metric(c.declared, name)) {
      text += metric->better == Better::larger ? "  larger is better" : "  smaller is better";
      if (!metric->unit.empty()) text += ", in " + metric->unit;
    }
    text += "\n";
  }
  return text;
}

}  // namespace attune
