// What sources of weights have in common.
#pragma once
#include <attune/weights.hpp>

#include <string>

namespace attune {

/// source.read(name), for a parameter of this dtype. Error if that is floating-point and the file
/// holds codes.
at::Tensor values_for(WeightSource& source, const std::string& name, at::ScalarType dtype);

}  // namespace attune
