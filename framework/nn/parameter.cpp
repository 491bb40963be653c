#include <attune/parameter.hpp>
#include <torch/torch.h>

#include "nn/meta_kernels.hpp"

namespace attune::nn {
namespace {

at::TensorOptions& options_of_parameters() {
  static thread_local auto options = at::TensorOptions(at::kFloat).device(at::kCPU);
  return options;
}

}  // namespace

at::Tensor new_parameter(at::IntArrayRef sizes) {
  return torch::empty(sizes, options_of_parameters());
}

ParametersOn::ParametersOn(c10::Device device, at::ScalarType dtype)
    : before_(options_of_parameters()) {
  if (device.is_meta()) serve_meta_device();
  options_of_parameters() = at::TensorOptions(dtype).device(device);
}

c10::Device ParametersOn::now() { return options_of_parameters().device(); }

ParametersOn::~ParametersOn() { options_of_parameters() = before_; }

}  // namespace attune::nn
