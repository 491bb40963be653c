// How layers make their parameters.
#pragma once
#include <attune/api.hpp>
#include <ATen/core/Tensor.h>

ATTUNE_API_BEGIN
namespace attune::nn {

/// Not initialised, of LibTorch's default dtype, and where this thread's parameters are made now:
/// on the host, unless a ParametersOn says otherwise. Every layer makes its parameters with this.
at::Tensor new_parameter(at::IntArrayRef sizes);

/// While it lives, new_parameter() makes this thread's parameters on that device. On at::kMeta they
/// have a shape and a dtype but no memory and no values: so is a run planned without its weights.
class ParametersOn {
 public:
  explicit ParametersOn(c10::Device device);
  ~ParametersOn();
  ParametersOn(const ParametersOn&) = delete;
  ParametersOn& operator=(const ParametersOn&) = delete;

  /// Where this thread makes parameters now. A table that a layer computes for itself belongs there
  /// too.
  static c10::Device now();

 private:
  c10::Device before_;
};

}  // namespace attune::nn
ATTUNE_API_END
