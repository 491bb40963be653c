// Tensors from rank to rank.
#pragma once
#include <ATen/core/Tensor.h>
#include <attune/comm.hpp>

namespace attune::parallel {

/// Rank 0's tensor on every rank, on the CPU, whatever its shape and dtype; what the others pass does not matter. Collective.
at::Tensor broadcast_tensor(at::Tensor tensor, const Comm& comm);

}  // namespace attune::parallel
