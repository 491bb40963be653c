// A strategy says what is trained and on which loss.
#pragma once
#include <attune/loss.hpp>
#include <attune/model.hpp>

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace attune {

using NamedTensor = std::pair<std::string, at::Tensor>;

/// Parameters that share a learning rate and weight decay, as factors of the run's own.
struct ParameterGroup {
  std::vector<NamedTensor> parameters;
  double learning_rate_scale = 1.0;
  double weight_decay_scale = 1.0;
};

/// A PEFT adapter folder: the text of adapter_config.json and the tensors of adapter_model.safetensors.
struct Adapter {
  std::string config;
  std::vector<NamedTensor> tensors;
};

class Strategy {
 public:
  virtual ~Strategy() = default;
  /// Freezes and injects. Afterwards exactly the parameters with requires_grad are trained.
  virtual void prepare(Model& model) = 0;

  /// Default: all trainable parameters; weight decay on matrices, none on vectors (biases, norms).
  virtual std::vector<ParameterGroup> groups(Model& model);
  /// Default: what the batch's targets ask for (supervised_loss).
  virtual Loss loss(Model& model, const Batch& batch);
  virtual void on_epoch(Model& model, std::int64_t epoch);
  /// What a checkpoint must hold. Default: the trainable parameters.
  virtual std::vector<NamedTensor> state(Model& model);
  /// Absent: the result is a whole model.
  virtual std::optional<Adapter> export_adapter(Model& model);
  /// Folds what was injected into the model's own weights.
  virtual void merge(Model& model);
};

/// Trainable parameters with their dotted names, in registration order; a shared tensor once.
std::vector<NamedTensor> trainable(Model& model);

}  // namespace attune
