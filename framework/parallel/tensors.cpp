#include "parallel/tensors.hpp"

#include <ATen/ATen.h>

namespace attune::parallel {

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

}  // namespace attune::parallel
