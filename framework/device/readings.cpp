#include "device/readings.hpp"

#include <torch/torch.h>

namespace attune::device {

std::size_t Readings::add(const at::Tensor& numbers) {
  const auto place = places_;
  pending_.push_back(numbers.detach().to(at::kDouble).flatten());
  places_ += static_cast<std::size_t>(numbers.numel());
  return place;
}

void Readings::read() {
  const torch::NoGradGuard no_grad;
  std::vector<at::Tensor> far;
  for (const auto& tensor : pending_)
    if (!tensor.is_cpu()) far.push_back(tensor);
  const at::Tensor arrived = far.empty() ? at::Tensor() : at::cat(far).cpu();
  std::int64_t next = 0;  // of those that arrived
  for (const auto& tensor : pending_) {
    const auto count = tensor.numel();
    const at::Tensor here = tensor.is_cpu() ? tensor.contiguous() : arrived.narrow(0, next, count);
    if (!tensor.is_cpu()) next += count;
    const auto* values = here.const_data_ptr<double>();
    numbers_.insert(numbers_.end(), values, values + count);
  }
  pending_.clear();
}

}  // namespace attune::device
