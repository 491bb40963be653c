#include <attune/error.hpp>
#include <ATen/ATen.h>

#include <algorithm>

#include "weights/weight_source.hpp"

namespace attune {

bool WeightSource::contains(const std::string& name) const {
  const auto& all = tensors();
  return std::any_of(all.begin(), all.end(),
                     [&](const TensorInfo& info) { return info.name == name; });
}

at::Tensor WeightSource::read_as(const std::string& name, at::ScalarType dtype,
                                 bool is_transposed) {
  const at::Tensor values = values_for(*this, name, dtype).to(dtype);
  return is_transposed ? values.t().contiguous() : values;
}

at::Tensor values_for(WeightSource& source, const std::string& name, at::ScalarType dtype) {
  at::Tensor values = source.read(name);
  if (!at::isFloatingType(dtype) || at::isFloatingType(values.scalar_type())) return values;
  const auto& all = source.tensors();
  const auto info = std::ranges::find(all, name, &TensorInfo::name);
  fail(
      "the weights contain '{}' as {}, the codes of an unsupported quantization; use the "
      "unquantized model, or its GGUF file",
      name, info->stored);
}

}  // namespace attune
