#include "parallel/wide_gradients.hpp"

#include <ATen/ATen.h>

namespace attune::parallel {

void widen_gradient(const at::Tensor& parameter) {
  if (parameter.scalar_type() == at::kBFloat16) parameter.set_grad_dtype(at::kFloat);
}

at::ScalarType gradient_dtype(const at::Tensor& parameter) {
  return parameter.grad_dtype().value_or(parameter.scalar_type());
}

bool has_wide_gradient(const at::Tensor& parameter) {
  return gradient_dtype(parameter) != parameter.scalar_type();
}

at::Tensor zero_gradient(const at::Tensor& parameter) {
  return at::zeros_like(parameter, parameter.options().dtype(gradient_dtype(parameter)));
}

std::size_t gradient_bytes(const at::Tensor& parameter) {
  return static_cast<std::size_t>(parameter.numel()) * c10::elementSize(gradient_dtype(parameter));
}

}  // namespace attune::parallel
