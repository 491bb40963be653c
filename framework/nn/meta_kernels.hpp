// Operator support on the meta device.
#pragma once

namespace attune::nn {

/// Enables LibTorch's operators on the meta device wherever output shapes do not depend on values,
/// by adding shape functions where C++ lacks them. Operators that need values throw c10::Error.
void serve_meta_device();

}  // namespace attune::nn
