// A strategy defines what is trained and with which loss. A run may list several; each extends the
// result of the previous ones, for example a loss on an adapter on a frozen base model.
#pragma once
#include <attune/api.hpp>
#include <attune/batch_source.hpp>
#include <attune/loss.hpp>
#include <attune/metric.hpp>
#include <attune/model_view.hpp>
#include <attune/run_context.hpp>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

/// Parameters with common factors on the run's learning rate and weight decay.
struct ParameterGroup {
  std::vector<NamedTensor> parameters;
  double learning_rate_scale = 1.0;
  double weight_decay_scale = 1.0;
};

/// An adapter in PEFT's folder layout: the text of adapter_config.json and the tensors of
/// adapter_model.safetensors.
struct Adapter {
  std::string config;
  std::vector<NamedTensor> tensors;
  // true: the tensors alias the parameters, so an adapter of the same form can be loaded into them
  bool is_live = true;
};

/// The loss as defined by the preceding strategies; supervised_loss for the first strategy.
using LossFunction = std::function<Loss(Model&, const ForwardContext&)>;

class Strategy {
 public:
  virtual ~Strategy() = default;
  /// Adds deltas to the model and selects trainable parameters. A strategy that only changes the
  /// loss does nothing here.
  virtual void prepare(ModelView& view) = 0;

  /// Assigns parameters to groups. `groups`: all trainable parameters as grouped by the preceding
  /// strategies. Initially: matrices, and vectors (biases, norms) without weight decay. Default:
  /// returns `groups`.
  virtual std::vector<ParameterGroup> groups(Model& model, std::vector<ParameterGroup> groups);
  /// The loss of context.batch(). Default: inner(model, context). Outside training
  /// (ForwardContext::is_training) the loss is the evaluation loss; a strategy that only
  /// regularises must not change it.
  virtual Loss loss(Model& model, const ForwardContext& context, const LossFunction& inner);
  /// Whether `loss` ignores `inner`. At most one strategy of a run may do so.
  virtual bool defines_loss() const { return false; }
  /// Metrics of an evaluation. `inner`: metrics of the dataset plugin and the preceding strategies.
  /// May be called before `prepare`. Default: `inner`. If defines_loss(), the default keeps only
  /// the metrics of `inner` with Needs::sums. Override it to return `inner` if the evaluation loss
  /// is the plain one.
  virtual std::vector<Metric> metrics(std::vector<Metric> inner) const;
  /// Called once, before the base model is evaluated and before the first step. Also called for
  /// resumed and evaluated runs, before their state is restored.
  virtual void begin(Model& model, RunContext& run);
  /// Called at the start of each epoch; `epoch` counts from 0. Also called when a run resumes
  /// within an epoch.
  virtual void on_epoch(Model& model, std::int64_t epoch);
  /// Called before each step; `step` counts from 0. May freeze trainable parameters temporarily
  /// with requires_grad; the optimizer skips them.
  virtual void on_step(Model& model, std::int64_t step);
  /// The source of training batches. `inner`: source of the preceding strategies, initially the
  /// data file. Called once, after `begin`. Default: `inner`.
  virtual std::shared_ptr<BatchSource> batches(Model& model, std::shared_ptr<BatchSource> inner);
  /// Called after the update of each step, including skipped steps. Changes to trainable parameters
  /// must be identical on every rank; with parallel.shard = "weights" they are refused.
  virtual void after_step(Model& model, std::int64_t step);
  /// Tensors to checkpoint in addition to the trainable parameters. Default: none.
  virtual std::vector<NamedTensor> state(Model& model);
  /// The trained adapter. Absent if the result is a whole model.
  virtual std::optional<Adapter> export_adapter(Model& model);
  /// Folds all changes into the model's own weights. Error if that is impossible. Default: merges
  /// every delta.
  virtual void merge(Model& model);
  /// The adapter whose tensors alias the parameters, into which a given adapter is loaded. Default:
  /// export_adapter().
  virtual std::optional<Adapter> adapter_to_start(Model& model);
};

/// A strategy that inspects or changes gradients derives from this as well. Only for such
/// strategies every rank holds whole gradients where parallel.shard divides them.
class GradientHook {
 public:
  virtual ~GradientHook();
  /// Called after gradients are summed over the step and all ranks, before clipping. Each gradient
  /// times `scale` is the mean over the step's targets. Not called for a step that is skipped
  /// because of non-finite gradients. Returns whether it changed gradients, which must happen in
  /// place and identically on every rank.
  virtual bool on_gradients(Model& model, std::int64_t step, double scale) = 0;
};

/// Trainable parameters with dotted names, in registration order. A shared tensor is listed once.
std::vector<NamedTensor> trainable(Model& model);

}  // namespace attune
ATTUNE_API_END
