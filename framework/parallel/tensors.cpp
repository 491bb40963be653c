#include "parallel/tensors.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "parallel/mpi.hpp"

namespace attune::parallel {
namespace {

/// move(begin, count) for each message that MPI can count.
template <class Move>
void in_messages(const at::Tensor& tensor, const Move& move) {
  auto* bytes = static_cast<std::byte*>(tensor.data_ptr());
  for (std::size_t done = 0; done < tensor.nbytes(); done += largest_message)
    move(bytes + done, static_cast<int>(std::min(tensor.nbytes() - done, largest_message)));
}

}  // namespace

Version version_of(const at::Tensor& tensor) {
  return {tensor.storage().unsafeGetStorageImpl(), tensor._version()};
}

at::Tensor broadcast_tensor(at::Tensor tensor, const Comm& comm, int from) {
  // header: dtype, number of dimensions
  std::vector<std::int64_t> header(2);
  std::vector<std::int64_t> shape;
  if (comm.rank() == from) {
    tensor = tensor.detach().cpu().contiguous();
    header = {static_cast<std::int64_t>(tensor.scalar_type()), tensor.dim()};
    shape = tensor.sizes().vec();
  }
  comm.broadcast(header.data(), header.size() * sizeof header[0], from);
  shape.resize(header[1]);
  comm.broadcast(shape.data(), shape.size() * sizeof shape[0], from);
  if (comm.rank() != from)
    tensor = at::empty(shape, at::TensorOptions().dtype(static_cast<at::ScalarType>(header[0])));
  comm.broadcast(tensor.data_ptr(), tensor.nbytes(), from);
  return tensor;
}

void send_tensor(const at::Tensor& tensor, int to, const Comm& comm) {
  const InCollective counted(comm, Collective::send, tensor.nbytes());
  in_messages(tensor, [&](const std::byte* begin, int count) {
    check_mpi(MPI_Send(begin, count, MPI_BYTE, to, 0, mpi_handle(comm)), "MPI_Send");
  });
}

void receive_tensor(const at::Tensor& tensor, int from, const Comm& comm) {
  const InCollective waiting;
  in_messages(tensor, [&](std::byte* begin, int count) {
    check_mpi(MPI_Recv(begin, count, MPI_BYTE, from, 0, mpi_handle(comm), MPI_STATUS_IGNORE),
              "MPI_Recv");
  });
}

}  // namespace attune::parallel
