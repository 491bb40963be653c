// How much memory tensors take: those of the host, and those of the meta device, which would take
// it.
#pragma once
#include <attune/model.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace attune::nn {

/// Counts the bytes of the tensors that this thread makes and drops while it lives, on the host and
/// on the meta device.
class TensorMeter {
 public:
  TensorMeter();
  ~TensorMeter();
  TensorMeter(const TensorMeter&) = delete;
  TensorMeter& operator=(const TensorMeter&) = delete;

  /// What was made and is still there, less what was there before and is dropped.
  std::int64_t live() const;
  /// The most that live() was.
  std::int64_t peak() const;

 private:
  struct Count;
  struct Guard;
  std::shared_ptr<Count> count_;
  std::unique_ptr<Guard> guard_;
};

/// Bytes of tensors that one forward and backward pass takes.
struct PassMemory {
  std::size_t kept = 0;  // from the forward pass for the backward pass
  std::size_t most = 0;  // at any time, gradients included
};

/// `loss` makes the forward pass and returns the loss; what is trained is left without gradients.
/// On the host the pass is computed; a model on the meta device gives the same numbers without a
/// computation and without memory.
PassMemory pass_memory(Model& model, const std::function<at::Tensor()>& loss);

/// Bytes of the tensors that Model::features(context) leaves alive: its result and what autograd
/// keeps.
std::size_t activation_bytes(Model& model, const ForwardContext& context);

}  // namespace attune::nn
