// Tensors from rank to rank.
#pragma once
#include <ATen/core/Tensor.h>
#include <attune/comm.hpp>

namespace attune::parallel {

/// The tensor of rank `from` on every rank, on the CPU, whatever its shape and dtype; what the
/// others pass does not matter. Collective.
at::Tensor broadcast_tensor(at::Tensor tensor, const Comm& comm, int from = 0);

}  // namespace attune::parallel
