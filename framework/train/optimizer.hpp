// AdamW and SGD over parameter groups, with LibTorch's fused multi-tensor kernels.
#pragma once
#include <attune/strategy.hpp>

#include "config/run_config.hpp"

namespace attune::train {

/// AdamW: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2. State is float32 [as the parameter].
class Optimizer {
 public:
  Optimizer(std::vector<ParameterGroup> groups, const config::TrainOptions& options);

  /// Multiplies every gradient by `scale` and then, when their norm is over `clip` (0: never), by clip / norm. Returns the norm before clipping.
  double scale_and_clip(double scale, double clip);
  /// One update from the parameters' .grad.
  void step(double learning_rate);

  const std::vector<NamedTensor>& parameters() const { return parameters_; }
  /// Live tensors to save, and to restore in place: "<parameter>.exp_avg", "<parameter>.exp_avg_sq", "<parameter>.step" or "<parameter>.momentum".
  std::vector<NamedTensor> state() const;

 private:
  struct Group {
    std::vector<at::Tensor> parameters, first, second, steps;  // first, second: AdamW's moments; first alone: SGD's momentum
    double learning_rate_scale, weight_decay;
  };
  static Group active(const Group& group);
  std::vector<at::Tensor> gradients(const std::vector<at::Tensor>& parameters) const;

  config::TrainOptions options_;
  std::vector<Group> groups_;
  std::vector<NamedTensor> parameters_;
  bool adamw_;
};

}  // namespace attune::train
