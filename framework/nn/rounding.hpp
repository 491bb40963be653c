// Rounding of trained values to bfloat16. Decision record: docs/design/0035-float32-masters.md.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace attune::nn {

/// Rounds float32 values to bfloat16, each up or down at a threshold of its own between two numbers
/// of bfloat16. The thresholds of neighbours are spread evenly (a Weyl sequence of the golden
/// ratio): when many values change by a tenth of a last digit, a tenth of the results change by a
/// digit, where rounding to the nearest number may change none. Numbers of bfloat16 stay as they
/// are; a result is off by less than a last digit. first: index of the first value in its whole
/// tensor, on which its threshold depends. Contiguous result of the same shape.
at::Tensor rounded_evenly(const at::Tensor& values, std::int64_t first = 0);

/// The same into a tensor of the shape that is there.
void round_evenly_into(const at::Tensor& result, const at::Tensor& values, std::int64_t first);

/// Sets each float32 value that does not round to the element of `rounded` to that element. Takes
/// little memory of its own, unless one of the tensors is not contiguous.
void follow_rounded(const at::Tensor& values, const at::Tensor& rounded, std::int64_t first);

/// Calls work() while a weight in bfloat16 is in float32, and rounds the result evenly. A weight of
/// another dtype, or none, stays as it is. If work() throws, the weight stays in float32.
template <class Work>
void in_float32(at::Tensor& weight, const Work& work) {
  const bool is_rounded = weight.defined() && weight.scalar_type() == at::kBFloat16;
  if (is_rounded) weight.set_data(weight.to(at::kFloat));
  work();
  if (is_rounded) weight.set_data(rounded_evenly(weight.detach()));
}

}  // namespace attune::nn
