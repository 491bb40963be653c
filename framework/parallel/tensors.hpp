// Transfer of tensors between ranks.
#pragma once
#include <ATen/core/Tensor.h>
#include <attune/comm.hpp>

#include <cstdint>
#include <utility>

namespace attune::parallel {

/// In which storage a tensor is, and how often it was written to. Writes that LibTorch does not
/// count, through .data() or a pointer, do not show.
using Version = std::pair<const void*, std::int64_t>;
Version version_of(const at::Tensor& tensor);

/// Returns the tensor of rank `from` on every rank, on the CPU, with any shape and dtype. The
/// argument is ignored on the other ranks. Collective.
at::Tensor broadcast_tensor(at::Tensor tensor, const Comm& comm, int from = 0);

/// The bytes of a contiguous tensor in host memory, of any length, from one rank to another, which
/// receives them into a tensor of that size. Counted as a message of the sender. Each call waits
/// for the other.
void send_tensor(const at::Tensor& tensor, int to, const Comm& comm);
void receive_tensor(const at::Tensor& tensor, int from, const Comm& comm);

}  // namespace attune::parallel
