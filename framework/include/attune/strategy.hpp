// A strategy says what is trained and on which loss. A run may list several: each builds on what those before it in the list made, as
// a loss over an adapter over a frozen base does.
#pragma once
#include <attune/comm.hpp>
#include <attune/loss.hpp>
#include <attune/model.hpp>
#include <attune/tokenizer.hpp>

#include <functional>
#include <map>
#include <memory>
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

/// An adapter folder in PEFT's layout: the text of adapter_config.json and the tensors of adapter_model.safetensors.
struct Adapter {
  std::string config;
  std::vector<NamedTensor> tensors;
  bool is_live = true;  // the tensors are the parameters themselves: an adapter of the same form can be copied into them
};

/// The loss of a batch as the strategies before this one define it; supervised_loss for the first.
using LossFunction = std::function<Loss(Model&, const Batch&)>;

/// What a strategy may ask of the run before its first step. Collective, all of it.
class Surroundings {
 public:
  virtual ~Surroundings() = default;
  virtual Comm comm() const = 0;
  /// The model's own. Error when it has none.
  virtual Tokenizer tokenizer() = 0;
  /// Another model, of any architecture that there is a plugin for: a folder or a .gguf file; frozen, in inference mode. Error when it reads text with
  /// another tokenizer than the run's model.
  virtual std::shared_ptr<Model> open_model(const std::string& path) = 0;
  /// sha256 of the weights of such a model.
  virtual std::string model_sha256(const std::string& path) = 0;
  /// By label, as prepared with balance.method = "weights"; empty otherwise.
  virtual std::vector<double> class_weights() = 0;
  /// Calls work with the first `samples` (0: all) of the training split of a data file of the run's kind ("": the run's own), batch by
  /// batch, the same on every rank.
  virtual void for_each_batch(const std::string& path, std::int64_t samples, const std::function<void(const Batch&)>& work) = 0;
  /// Calls work with the samples that the run's steps take and those that it is measured on, batch by batch, the same on every rank.
  virtual void for_each_own_batch(const std::function<void(const Batch&)>& work) = 0;
  /// The tensors of a safetensors file that one run makes and others read, over the mapped file. Where there is none, `make` computes them, the same on
  /// every rank, and they are written. The file holds `made_from` and the hash of the run's training split; Error when these are others.
  virtual std::vector<NamedTensor> kept(const std::string& path, const std::map<std::string, std::string>& made_from, const std::function<std::vector<NamedTensor>()>& make) = 0;
  /// False when the run's steps are over and it is only measured: what serves training alone need not be made.
  virtual bool trains() const = 0;
};

class Strategy {
 public:
  virtual ~Strategy() = default;
  /// Injects, and sets requires_grad on what it trains: every parameter comes frozen. A strategy that only changes the loss does nothing.
  virtual void prepare(Model& model) = 0;

  /// `groups`: all that is trained, as the strategies before this one grouped it; at first matrices, and vectors (biases, norms)
  /// without weight decay. Default: as they are.
  virtual std::vector<ParameterGroup> groups(Model& model, std::vector<ParameterGroup> groups);
  /// Default: inner(model, batch). While the model is in inference mode the loss is what is measured: a strategy that only regularises
  /// leaves it as it is.
  virtual Loss loss(Model& model, const Batch& batch, const LossFunction& inner);
  /// Whether `loss` leaves `inner` out: of a list, only one may.
  virtual bool defines_loss() const { return false; }
  /// Once, before the base is measured and the first step taken; also when the run is resumed or only measured, before its state is restored.
  virtual void begin(Model& model, Surroundings& run);
  virtual void on_epoch(Model& model, std::int64_t epoch);
  /// step: from 0. What is trained may be frozen for a while by requires_grad: the optimizer leaves it alone.
  virtual void on_step(Model& model, std::int64_t step);
  /// What a checkpoint must hold beside the parameters that are trained. Default: nothing.
  virtual std::vector<NamedTensor> state(Model& model);
  /// Absent: the result is a whole model.
  virtual std::optional<Adapter> export_adapter(Model& model);
  /// Folds what was injected into the model's own weights. Error where that cannot be. Default: merges every delta.
  virtual void merge(Model& model);
  /// The adapter in the form that one is read in: its tensors are the parameters themselves. Default: export_adapter's.
  virtual std::optional<Adapter> adapter_to_start(Model& model);
};

/// Trainable parameters with their dotted names, in registration order; a shared tensor once.
std::vector<NamedTensor> trainable(Model& model);

}  // namespace attune
