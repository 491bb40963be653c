// AdamW and SGD over parameter groups. AdamW in float32 on the CPU is our own, one pass over memory; the rest is LibTorch's multi-tensor kernels.
#pragma once
#include <attune/strategy.hpp>

#include "config/run_config.hpp"

namespace attune::train {

/// AdamW: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2. State is float32 [as the parameter].
class Optimizer {
 public:
  Optimizer(std::vector<ParameterGroup> groups, const config::TrainOptions& options);

  /// In the next update every gradient counts times `scale` and, when the norm of all of them is then over `clip` (0: never), times clip / norm.
  /// Returns the norm before clipping; the same on any number of threads.
  double scale_and_clip(double scale, double clip);
  /// One update from the parameters' .grad.
  void step(double learning_rate);

  const std::vector<NamedTensor>& parameters() const { return parameters_; }
  /// Live tensors to save, and to restore in place before the first update: "<parameter>.exp_avg", "<parameter>.exp_avg_sq", "<parameter>.step"
  /// or "<parameter>.momentum".
  std::vector<NamedTensor> state() const;

 private:
  enum class Moments : char { unknown, zero, moving };
  struct Slot {
    at::Tensor parameter, first, second, updates;  // first, second: AdamW's moments; first alone: SGD's momentum
    std::vector<Moments> moments;                  // by stretch of the parameter
  };
  struct Group {
    std::vector<Slot> slots;
    double learning_rate_scale, weight_decay;
  };

  void adamw(const std::vector<Slot*>& slots, double rate, double weight_decay) const;
  void adamw_elsewhere(const std::vector<Slot*>& slots, double rate, double weight_decay) const;
  void sgd(const std::vector<Slot*>& slots, double rate, double weight_decay) const;

  config::TrainOptions options_;
  std::vector<Group> groups_;
  std::vector<NamedTensor> parameters_;
  bool is_adamw_;
  double scale_ = 1;  // of the gradients, in the next update
};

}  // namespace attune::train
