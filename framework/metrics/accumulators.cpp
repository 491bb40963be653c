// The metrics that come with Attune. Everything is added up in double, where counts are exact.
#include <attune/loss.hpp>
#include <attune/metric.hpp>
#include <attune/model.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

namespace attune::metrics {
namespace {

using Sums = std::vector<double>;

double total(const at::Tensor& tensor) { return tensor.sum().item<double>(); }

/// Loss::sum and count.
Sums loss_sums(const Measured& batch) {
  return {batch.loss.sum.item<double>(), static_cast<double>(batch.loss.count)};
}

Sums correct_sums(const Measured& batch) {
  const auto& correct = batch.loss.correct;
  return {correct.defined() ? correct.item<double>() : 0.0, static_cast<double>(batch.loss.count)};
}

double ratio(const Sums& sums) { return sums[0] / sums[1]; }

/// Labels that hold in the data, that are predicted, that are both.
Sums label_sums(const Measured& batch) {
  const auto held = batch.batch.targets.gt(0.5);
  const auto said = batch.loss.outputs.gt(0.5);
  return {total(held), total(said), total(held.logical_and(said))};
}

/// Outputs x and targets y: their number, sums, sums of squares and of products.
Sums value_sums(const Measured& batch) {
  const auto x = batch.loss.outputs.to(at::kDouble);
  const auto y = batch.batch.targets.to(at::kDouble);
  return {static_cast<double>(y.numel()),
          total(x),
          total(y),
          total(x.mul(x)),
          total(y.mul(y)),
          total(x.mul(y))};
}

double correlation(const Sums& sums) {
  const double n = sums[0];
  const double x = sums[1];
  const double y = sums[2];
  const double xx = sums[3];
  const double yy = sums[4];
  const double xy = sums[5];
  const double spread = std::max(0.0, n * xx - x * x) * std::max(0.0, n * yy - y * y);
  return spread > 0 ? (n * xy - x * y) / std::sqrt(spread) : 0;
}

/// Of every class that occurs: how many targets it has, how many outputs, and how many are both. A
/// batch holds few of many classes: the state is a list of {class, targets, outputs, both}.
class ClassCounts : public Accumulator {
 public:
  void add(const Measured& batch) override {
    const auto targets = batch.batch.on_host(batch.batch.targets).to(at::kLong).contiguous();
    const auto outputs = batch.loss.outputs.to(at::kCPU, at::kLong).contiguous();
    const auto* wanted = targets.const_data_ptr<std::int64_t>();
    const auto* said = outputs.const_data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < targets.numel(); ++i) {
      if (wanted[i] == ignored_target) continue;
      ++counts_[wanted[i]][0];
      ++counts_[said[i]][1];
      if (wanted[i] == said[i]) ++counts_[wanted[i]][2];
    }
  }
  std::vector<double> state() const override {
    std::vector<double> state;
    for (const auto& [number, counts] : counts_) {
      state.push_back(static_cast<double>(number));
      state.insert(state.end(), counts.begin(), counts.end());
    }
    return state;
  }
  void merge(const std::vector<double>& state) override {
    for (std::size_t at = 0; at + 3 < state.size(); at += 4) {
      auto& counts = counts_[static_cast<std::int64_t>(state[at])];
      for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += state[at + 1 + i];
    }
  }

 protected:
  std::map<std::int64_t, std::array<double, 3>> counts_;
};

class MacroF1 final : public ClassCounts {
 public:
  double value() const override {
    double sum = 0;
    for (const auto& [number, counts] : counts_) sum += 2 * counts[2] / (counts[0] + counts[1]);
    return sum / static_cast<double>(counts_.size());
  }
};

class Matthews final : public ClassCounts {
 public:
  double value() const override {
    double n = 0;
    double both = 0;
    double products = 0;
    double targets = 0;
    double outputs = 0;
    for (const auto& [number, counts] : counts_) {
      n += counts[0];
      both += counts[2];
      products += counts[0] * counts[1];
      targets += counts[0] * counts[0];
      outputs += counts[1] * counts[1];
    }
    const double spread = (n * n - targets) * (n * n - outputs);
    return spread > 0 ? (both * n - products) / std::sqrt(spread) : 0;
  }
};

}  // namespace

Metric loss(std::string unit, std::string doc) {
  return {"loss",         Better::smaller, std::move(unit),
          std::move(doc), Needs::sums,     accumulate_sums(loss_sums, ratio)};
}

Metric accuracy(std::string doc) {
  return {"accuracy",     Better::larger, "",
          std::move(doc), Needs::sums,    accumulate_sums(correct_sums, ratio)};
}

Metric perplexity() {
  const auto value = [](const Sums& sums) { return std::exp(ratio(sums)); };
  return {"perplexity", Better::smaller,      "",
          "exp(loss)",  Needs::cross_entropy, accumulate_sums(loss_sums, value)};
}

Metric f1() {
  const auto value = [](const Sums& sums) {
    return 2 * sums[2] / std::max(1.0, sums[1] + sums[0]);
  };
  return {"f1",
          Better::larger,
          "",
          "F1 over all labels of all samples (micro-averaged)",
          Needs::outputs,
          accumulate_sums(label_sums, value)};
}

Metric pearson() {
  return {"pearson",
          Better::larger,
          "",
          "Pearson's correlation of outputs and targets",
          Needs::outputs,
          accumulate_sums(value_sums, correlation)};
}

Metric f1_macro() {
  return {"f1_macro",
          Better::larger,
          "",
          "unweighted mean of the F1 of all classes (macro-averaged)",
          Needs::outputs,
          [] { return std::make_shared<MacroF1>(); }};
}

Metric mcc() {
  return {"mcc", Better::larger, "", "Matthews' correlation coefficient", Needs::outputs, [] {
            return std::make_shared<Matthews>();
          }};
}

Metric scalar(std::string name, const std::string& scalar, Better better, std::string unit,
              std::string doc) {
  const auto sums = [scalar](const Measured& batch) -> Sums {
    const auto found = batch.loss.scalars.find(scalar);
    if (found == batch.loss.scalars.end()) return {0, 0};
    return {found->second.sum.item<double>(), found->second.count};
  };
  return {std::move(name), better,      std::move(unit),
          std::move(doc),  Needs::sums, accumulate_sums(sums, ratio)};
}

std::vector<Metric> of_targets(const MetricContext& context) {
  const auto& targets = context.example.targets;
  if (!targets.defined()) return {loss("", "mean of the strategy's loss over the targets")};
  if (targets.is_floating_point() && targets.dim() == 2)
    return {loss("nats", "mean binary cross-entropy of the labels"),
            accuracy("fraction of labels predicted correctly at threshold 0.5"), f1()};
  if (targets.is_floating_point()) return {loss("", "mean squared error"), pearson()};
  std::vector<Metric> of_classes{loss("nats", "mean cross-entropy of the targets"),
                                 accuracy("fraction of targets with the largest output")};
  const auto task = context.model.task;
  if (task == Task::next_token) of_classes.push_back(perplexity());
  if (task == Task::classification || task == Task::token_classification) {
    of_classes.push_back(f1_macro());
    of_classes.push_back(mcc());
  }
  return of_classes;
}

std::vector<Metric> all() {
  return {loss("", ""), accuracy(""), perplexity(), f1(), pearson(), f1_macro(), mcc()};
}

}  // namespace attune::metrics
