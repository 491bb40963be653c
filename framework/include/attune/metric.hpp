// Declared metrics: name, unit, whether larger is better, and how values accumulate over an
// evaluation. Decision record: docs/design/0020-metrics-are-declared.md.
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

/// What a metric reads from a loss. A strategy that defines its own loss keeps the metrics whose
/// needs its loss still meets.
enum class Needs {
  sums,           // Loss::sum, count and correct, or only the batch
  cross_entropy,  // as sums, and sum / count must be a mean of -log p(target)
  outputs,        // Loss::outputs
};

/// One evaluated batch. Tensors are on the run's device.
struct Measured {
  const Loss& loss;    // from the run's strategies, in inference mode
  const Batch& batch;  // targets and columns as collated by the dataset plugin
};

/// Accumulates a metric. Each batch has its own accumulator. The framework merges their states in
/// batch order, so the result is the same on every rank and for any number of ranks.
class Accumulator {
 public:
  virtual ~Accumulator() = default;
  virtual void add(const Measured& batch) = 0;
  /// The accumulated state as numbers. The length may differ between batches.
  virtual std::vector<double> state() const = 0;
  /// Adds the state of another accumulator, whose batches follow the ones already merged.
  virtual void merge(const std::vector<double>& state) = 0;
  /// Value over all added and merged batches. May be NaN if there were no targets.
  virtual double value() const = 0;
};
using MakeAccumulator = std::function<std::shared_ptr<Accumulator>()>;

/// Accumulator for a metric that is a function of sums. `sums` returns the sums of one batch, the
/// same number for each batch. `value` maps the totals to the metric.
MakeAccumulator accumulate_sums(std::function<std::vector<double>(const Measured&)> sums,
                                std::function<double(const std::vector<double>&)> value);

struct Metric {
  // letters, digits and _ / . - ; a key in metrics.jsonl and evaluation.json, and an option value
  std::string name;
  Better better = Better::smaller;
  std::string unit = {};  // "nats"; "" if dimensionless, such as a fraction of 1
  std::string doc = {};   // one-line description
  Needs needs = Needs::sums;
  MakeAccumulator accumulator = {};  // null for a metric read from a file

  /// The value, negated if larger is better, so that a smaller cost is better. NaN stays NaN.
  double cost(double value) const { return better == Better::larger ? -value : value; }
};

/// Facts on which a dataset plugin's choice of metrics may depend. They are known before weights
/// are loaded and without a forward pass.
struct MetricContext {
  const Batch& example;  // one collated sample: shows which targets and columns exist
  const ModelSpec& model;
};

/// Returns the metric of that name, or null.
const Metric* find_metric(const std::vector<Metric>& metrics, const std::string& name);
/// Comma-separated names, sorted: "accuracy, loss".
std::string metric_names(const std::vector<Metric>& metrics);
/// The declarations as a JSON object: {"f1": {"better": "larger", "unit": "", "doc": "..."}, ...}.
std::string metrics_to_json(const std::vector<Metric>& metrics);
/// Parses the JSON of metrics_to_json. The metrics have no accumulators; invalid entries are
/// skipped.
std::vector<Metric> metrics_of_json(const std::string& json);

/// Built-in metrics, for Dataset::metrics and Strategy::metrics.
namespace metrics {

/// Loss::sum / Loss::count. Every run has a metric named "loss".
Metric loss(std::string unit, std::string doc);
/// Loss::correct / Loss::count. doc: description of what is counted.
Metric accuracy(std::string doc);
/// exp(loss).
Metric perplexity();
/// Micro-averaged F1 of multi-label samples: outputs and targets float32 [N, labels], with
/// threshold 0.5.
Metric f1();
/// Pearson correlation of outputs and targets, float32 [N]; 0 if either is constant.
Metric pearson();
/// Macro-averaged F1 over all classes that occur as a target or an output. Outputs and targets:
/// int64 [N].
Metric f1_macro();
/// Matthews correlation coefficient for multiple classes (Gorodkin 2004,
/// doi:10.1016/j.compbiolchem.2004.09.006). Outputs and targets: int64 [N]. 0 if it is undefined.
Metric mcc();
/// Mean of the values that strategies report as `scalar` (Loss::scalars).
Metric scalar(std::string name, const std::string& scalar, Better better, std::string unit,
              std::string doc);

/// The built-in metrics that fit the targets: the default of Dataset::metrics.
std::vector<Metric> of_targets(const MetricContext& context);
/// All built-in metrics except `scalar`. For runs whose files do not declare their metrics.
std::vector<Metric> all();

}  // namespace metrics
}  // namespace attune
ATTUNE_API_END
