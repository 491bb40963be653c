// Allocation of layer parameters.
#pragma once
#include <attune/api.hpp>
#include <ATen/core/Tensor.h>

ATTUNE_API_BEGIN
namespace attune::nn {

/// An uninitialised parameter with the device and dtype of the innermost ParametersOn of this
/// thread, or float32 on the CPU. All layers must create their parameters with this function.
at::Tensor new_parameter(at::IntArrayRef sizes);

/// Sets device and dtype of new_parameter() for this thread during its lifetime. Weights are read
/// into the parameters one by one, so the model exists once, in this dtype. On at::kMeta,
/// parameters have a shape and dtype but no memory; this allows planning a run without loading
/// weights.
class ParametersOn {
 public:
  explicit ParametersOn(c10::Device device, at::ScalarType dtype = at::kFloat);
  ~ParametersOn();
  ParametersOn(const ParametersOn&) = delete;
  ParametersOn& operator=(const ParametersOn&) = delete;

  /// The current device for new parameters of this thread. Use it also for tables that a layer
  /// computes.
  static c10::Device now();

 private:
  at::TensorOptions before_;
};

}  // namespace attune::nn
ATTUNE_API_END
