// Gradients of parameters in bfloat16. They are summed in float32, over micro-batches
// and over ranks. Decision record: docs/design/0035-float32-masters.md.
#pragma once
#include <ATen/core/Tensor.h>

namespace attune::parallel {

/// From now on, backward passes give the parameter a gradient in float32. Nothing changes for one
/// in another dtype. parameter: a leaf.
void widen_gradient(const at::Tensor& parameter);

/// The dtype of the gradient that backward passes give this leaf.
at::ScalarType gradient_dtype(const at::Tensor& parameter);

/// Whether widen_gradient() changed it.
bool has_wide_gradient(const at::Tensor& parameter);

/// A gradient of zeros, in memory as the parameter.
at::Tensor zero_gradient(const at::Tensor& parameter);

/// Size of the parameter's gradient in bytes.
std::size_t gradient_bytes(const at::Tensor& parameter);

}  // namespace attune::parallel
