// Transfer of tensors between ranks.
#pragma once
#include <ATen/core/Tensor.h>
#include <attune/comm.hpp>

namespace attune::parallel {

/// Returns the tensor of rank `from` on every rank, on the CPU, with any shape and dtype. The
/// argument is ignored on the other ranks. Collective.
at::Tensor broadcast_tensor(at::Tensor tensor, const Comm& comm, int from = 0);

}  // namespace attune::parallel
