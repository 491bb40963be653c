// Operators on tensors without values.
#pragma once

namespace attune::nn {

/// From now on LibTorch's operators work on the meta device wherever the shape of what they give
/// does not depend on values: those that have no shape function in C++ get one. What asks for
/// values throws c10::Error.
void serve_meta_device();

}  // namespace attune::nn
