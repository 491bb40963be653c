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
  /// Bytes allocated so far, whatever was freed.
  std::int64_t allocated() const;

 private:
  struct Count;
  struct Guard;
  std::shared_ptr<Count> count_;
  std::unique_ptr<Guard> guard_;
};

/// While it lives, TensorMeter counts no tensor of the host in this thread: those are made that
/// stand in for tensors of the meta device.
class HostUncounted {
 public:
  HostUncounted() : before_(is_on()) { is_on() = true; }
  ~HostUncounted() { is_on() = before_; }
  HostUncounted(const HostUncounted&) = delete;
  HostUncounted& operator=(const HostUncounted&) = delete;

  static bool& is_on() {
    static thread_local bool on = false;
    return on;
  }

 private:
  bool before_;
};

/// Tensor memory in bytes of one forward and backward pass.
struct PassMemory {
  std::size_t kept = 0;  // saved by the forward pass for the backward pass
  std::size_t most = 0;  // peak, including gradients
};

/// What the gradients of trainable parameters are before a pass: undefined, or there, from an
/// earlier micro-batch of the step, so that the pass adds to them.
enum class Gradients { none, held };

/// Measures a pass; `loss` runs the forward pass and returns the loss. Trainable parameters are
/// left without gradients. On the host the pass is executed. A model on the meta device gives the
/// same numbers without computation or memory.
PassMemory pass_memory(Model& model, const std::function<at::Tensor()>& loss,
                       Gradients before = Gradients::none);

/// Gives every trainable parameter that has no gradient one of zeros.
void hold_gradients(Model& model);

/// Bytes of the tensors that remain after Model::features(context): its result and the tensors
/// saved by autograd.
std::size_t activation_bytes(Model& model, const ForwardContext& context);

}  // namespace attune::nn
