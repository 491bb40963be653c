// A metric is a declared number: what it is called, which way is better, in what unit, and how it
// is accumulated over an evaluation. Decision record: docs/design/0020-metrics-are-declared.md.
#pragma once
#include <attune/api.hpp>

#include <functional>
#include <memory>
#include <string>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

struct Batch;
struct Loss;
struct ModelSpec;

enum class Better { smaller, larger };

/// What a metric reads of a loss. A strategy with a loss of its own keeps the metrics that its loss
/// still serves.
enum class Needs {
  sums,           // Loss::sum, count and correct, or the batch alone
  cross_entropy,  // the same, where sum / count is a mean of -log p(target)
  outputs,        // Loss::outputs
};

/// One batch of an evaluation. Tensors are on the run's device.
struct Measured {
  const Loss& loss;    // of the run's strategies in inference mode
  const Batch& batch;  // targets and columns, as the dataset plugin collated them
};

/// What a metric collects. Every batch has an accumulator of its own; the framework merges their
/// states in the order of the batches, the same on every rank and on any number of ranks.
class Accumulator {
 public:
  virtual ~Accumulator() = default;
  virtual void add(const Measured& batch) = 0;
  /// All that it holds, as numbers: of any length, also another for every batch.
  virtual std::vector<double> state() const = 0;
  /// Adds the state of another one. The batches of that one come after those that are here.
  virtual void merge(const std::vector<double>& state) = 0;
  /// Over all that was added and merged. Without any target it may be NaN.
  virtual double value() const = 0;
};
using MakeAccumulator = std::function<std::shared_ptr<Accumulator>()>;

/// A metric that is a function of sums. sums: of one batch, as many for every batch; value: of
/// their totals.
MakeAccumulator accumulate_sums(std::function<std::vector<double>(const Measured&)> sums,
                                std::function<double(const std::vector<double>&)> value);

struct Metric {
  // letters, digits and _ / . - : a key of metrics.jsonl and evaluation.json, and a value of
  // options
  std::string name;
  Better better = Better::smaller;
  std::string unit = {};  // "nats"; "": a number without a unit, such as a share of 1
  std::string doc = {};   // one line
  Needs needs = Needs::sums;
  MakeAccumulator accumulator = {};  // null for one that was read from a file

  /// The value, negated where larger is better: the smaller cost is the better one. NaN stays NaN.
  double cost(double value) const { return better == Better::larger ? -value : value; }
};

/// What a dataset plugin may make its metrics depend on. Known without a weight of the model and
/// without a forward pass.
struct MetricContext {
  const Batch& example;  // one sample, collated: which targets and columns there are
  const ModelSpec& model;
};

/// Null when there is none of that name.
const Metric* find_metric(const std::vector<Metric>& metrics, const std::string& name);
/// "accuracy, loss", sorted.
std::string metric_names(const std::vector<Metric>& metrics);
/// The declarations as a JSON object: {"f1": {"better": "larger", "unit": "", "doc": "..."}, ...}.
std::string metrics_to_json(const std::vector<Metric>& metrics);
/// The same back, without accumulators. What is no declaration is left out.
std::vector<Metric> metrics_of_json(const std::string& json);

/// The metrics that come with Attune, for Dataset::metrics and Strategy::metrics.
namespace metrics {

/// Loss::sum / Loss::count. Every run has one of this name.
Metric loss(std::string unit, std::string doc);
/// Loss::correct / Loss::count. doc: what is counted.
Metric accuracy(std::string doc);
/// exp(loss).
Metric perplexity();
/// Micro-averaged F1 of several labels a sample: outputs and targets float32 [N, labels], on the
/// same side of a half.
Metric f1();
/// Pearson's correlation of outputs and targets, float32 [N]; 0 where one side does not vary.
Metric pearson();
/// F1 of every class that is a target or an output, and their mean: outputs and targets int64 [N].
Metric f1_macro();
/// Matthews' correlation coefficient of classes (Gorodkin 2004,
/// doi:10.1016/j.compbiolchem.2004.09.006): outputs and targets int64 [N]; 0 where it is not
/// defined.
Metric mcc();
/// The mean of what strategies report under `scalar` (Loss::scalars).
Metric scalar(std::string name, const std::string& scalar, Better better, std::string unit,
              std::string doc);

/// What of these fits the targets: the default of Dataset::metrics.
std::vector<Metric> of_targets(const MetricContext& context);
/// All of them but `scalar`: for runs whose files were written before metrics were declared there.
std::vector<Metric> all();

}  // namespace metrics
}  // namespace attune
ATTUNE_API_END
