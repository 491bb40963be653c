#include <attune/parameter.hpp>
#include <torch/torch.h>

#include "nn/meta_kernels.hpp"

namespace attune::nn {
namespace {

c10::Device& device_of_parameters() {
  static thread_local c10::Device device = c10::kCPU;
  return device;
}

}  // namespace

at::Tensor new_parameter(at::IntArrayRef sizes) {
  return torch::empty(sizes, torch::TensorOptions().device(device_of_parameters()));
}

ParametersOn::ParametersOn(c10::Device device) : before_(device_of_parameters()) {
  if (device.is_meta()) serve_meta_device();
  device_of_parameters() = device;
}

c10::Device ParametersOn::now() { return device_of_parameters(); }

ParametersOn::~ParametersOn() { device_of_parameters() = before_; }

}  // namespace attune::nn
