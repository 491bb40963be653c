// Batches on devices.
#include <attune/batch.hpp>
#include <attune/device.hpp>
#include <torch/torch.h>

#include <algorithm>

namespace attune {

at::Tensor Batch::on_host(const at::Tensor& tensor) const {
  if (!tensor.defined() || tensor.is_cpu()) return tensor;
  const auto known = std::ranges::find_if(
      host_copies, [&](const auto& copy) { return copy.first.is_same(tensor); });
  return known == host_copies.end() ? tensor.cpu() : known->second;
}

at::Tensor Batch::put(const at::Tensor& tensor, c10::Device device) {
  const at::Tensor copy = on_device(tensor, device);
  if (!copy.is_same(tensor)) host_copies.emplace_back(copy, tensor);
  return copy;
}

}  // namespace attune
