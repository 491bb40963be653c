// Measures the memory of tensors on the host, and on the meta device as if it had memory.
#pragma once
#include <attune/model.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace attune::nn {

/// Counts bytes of tensors that this thread allocates and frees during its lifetime, on the host
/// and on the meta device.
class TensorMeter {
 public:
  TensorMeter();
  ~TensorMeter();
  TensorMeter(const TensorMeter&) = delete;
  TensorMeter& operator=(const TensorMeter&) = delete;

  /// Bytes allocated since the start and still alive, minus older tensors freed since.
  std::int64_t live() const;
  /// Maximum of live() so far.
  std::int64_t peak() const;

 private:
  struct Count;
  struct Guard;
  std::shared_ptr<Count> count_;
  std::unique_ptr<Guard> guard_;
};

/// Tensor memory in bytes of one forward and backward pass.
struct PassMemory {
  std::size_t kept = 0;  // saved by the forward pass for the backward pass
  std::size_t most = 0;  // peak, including gradients
};

/// Measures a pass; `loss` runs the forward pass and returns the loss. Trainable parameters are
/// left without gradients. On the host the pass is executed. A model on the meta device gives the
/// same numbers without computation or memory.
PassMemory pass_memory(Model& model, const std::function<at::Tensor()>& loss);

/// Bytes of the tensors that remain after Model::features(context): its result and the tensors
/// saved by autograd.
std::size_t activation_bytes(Model& model, const ForwardContext& context);

}  // namespace attune::nn
