// A strategy says what is trained and on which loss. A run may list several: each builds on what
// those before it in the list made, as a loss over an adapter over a frozen base does.
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

/// Parameters that share a learning rate and weight decay, as factors of the run's own.
struct ParameterGroup {
  std::vector<NamedTensor> parameters;
  double learning_rate_scale = 1.0;
  double weight_decay_scale = 1.0;
};

/// An adapter folder in PEFT's layout: the text of adapter_config.json and the tensors of
/// adapter_model.safetensors.
struct Adapter {
  std::string config;
  std::vector<NamedTensor> tensors;
  // the tensors are the parameters themselves: an adapter of the same form can be copied into them
  bool is_live = true;
};

/// The loss of a batch as the strategies before this one define it; supervised_loss for the first.
using LossFunction = std::function<Loss(Model&, const ForwardContext&)>;

class Strategy {
 public:
  virtual ~Strategy() = default;
  /// Adds changes to the model, and says what is trained. A strategy that only changes the loss
  /// does nothing.
  virtual void prepare(ModelView& view) = 0;

  /// `groups`: all that is trained, as the strategies before this one grouped it; at first
  /// matrices, and vectors (biases, norms) without weight decay. Default: as they are.
  virtual std::vector<ParameterGroup> groups(Model& model, std::vector<ParameterGroup> groups);
  /// Of context.batch(). Default: inner(model, context). Outside of training
  /// (ForwardContext::is_training) the loss is what is measured: a strategy that only regularises
  /// leaves it as it is.
  virtual Loss loss(Model& model, const ForwardContext& context, const LossFunction& inner);
  /// Whether `loss` leaves `inner` out: of a list, only one may.
  virtual bool defines_loss() const { return false; }
  /// What an evaluation measures. `inner`: what the dataset plugin and the strategies before this
  /// one declare. May be called before prepare. Default: `inner`; where defines_loss(), those of it
  /// that need Loss::sum, count and correct alone, for what `loss` gives outside of training is
  /// another loss. A strategy whose measured loss is the plain one returns `inner`.
  virtual std::vector<Metric> metrics(std::vector<Metric> inner) const;
  /// Once, before the base is measured and the first step taken; also when the run is resumed or
  /// only measured, before its state is restored.
  virtual void begin(Model& model, RunContext& run);
  virtual void on_epoch(Model& model, std::int64_t epoch);
  /// step: from 0. What is trained may be frozen for a while by requires_grad: the optimizer leaves
  /// it alone.
  virtual void on_step(Model& model, std::int64_t step);
  /// The batches that the steps train on. `inner`: those of the strategies before this one, at
  /// first the data's. Once, after `begin`. Default: `inner`.
  virtual std::shared_ptr<BatchSource> batches(Model& model, std::shared_ptr<BatchSource> inner);
  /// Once the parameters' gradients are summed over the step and all ranks, before they are
  /// clipped: each, times `scale`, is the mean over the step's targets. Not for a step that is left
  /// out, as its gradients are not finite. Returns whether it changed them (in place, and alike on
  /// every rank). Default: no.
  virtual bool on_gradients(Model& model, std::int64_t step, double scale);
  /// After the update of a step, also of one that was left out. Changes of what is trained are
  /// alike on every rank.
  virtual void after_step(Model& model, std::int64_t step);
  /// What a checkpoint must hold beside the parameters that are trained. Default: nothing.
  virtual std::vector<NamedTensor> state(Model& model);
  /// Absent: the result is a whole model.
  virtual std::optional<Adapter> export_adapter(Model& model);
  /// Folds what was injected into the model's own weights. Error where that cannot be. Default:
  /// merges every delta.
  virtual void merge(Model& model);
  /// The adapter in the form that one is read in: its tensors are the parameters themselves.
  /// Default: export_adapter's.
  virtual std::optional<Adapter> adapter_to_start(Model& model);
};

/// Trainable parameters with their dotted names, in registration order; a shared tensor once.
std::vector<NamedTensor> trainable(Model& model);

}  // namespace attune
ATTUNE_API_END
