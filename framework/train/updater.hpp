// What a run trains, in groups, with its optimizer and the tensors that the optimizer keeps.
#pragma once
#include <attune/optimizer.hpp>
#include <attune/strategy.hpp>

#include <memory>

#include "train/session.hpp"

namespace attune::train {

/// The shapes of what the model trains, in the order of trainable().
std::vector<ParameterSpec> trained_specs(Model& model);

/// What an optimizer keeps for such parameters. Nothing is made.
std::size_t state_bytes(const Optimizer& optimizer, const std::vector<ParameterSpec>& parameters);

/// What one gradient is multiplied by so that all of them together, whose norm is then `norm`, have
/// no larger norm than `clip` (0: any).
double clipped(double scale, double norm, double clip);

class Updater {
 public:
  /// `block_prefixes`: what the names of parameters in the model's blocks start with.
  Updater(std::shared_ptr<Optimizer> optimizer, std::vector<ParameterGroup> groups,
          double weight_decay, const std::vector<std::string>& block_prefixes);

  /// The norm of all gradients together; the same on any number of threads.
  double gradient_norm() const;
  /// One update from the parameters' .grad, each times gradient_scale.
  void step(double learning_rate, double gradient_scale);

  const std::vector<NamedTensor>& parameters() const { return parameters_; }
  /// Live tensors to save, and to restore in place before the first update: "<parameter>.exp_avg"
  /// and what else the optimizer keeps.
  std::vector<NamedTensor> state() const;

 private:
  struct Slot {
    ParameterSpec spec;
    at::Tensor parameter;
    std::vector<at::Tensor> state;
    std::vector<std::string> state_names;
  };
  struct Group {
    std::vector<Slot> slots;
    double learning_rate_scale;
    double weight_decay;
  };

  std::shared_ptr<Optimizer> optimizer_;
  std::vector<Group> groups_;
  std::vector<NamedTensor> parameters_;
};

/// What the names of the parameters in each of its blocks start with.
std::vector<std::string> block_prefixes(const Model& model);

/// The run's optimizer over what its strategies train.
Updater make_updater(const Session& session);

}  // namespace attune::train
