#include <attune/nn.hpp>
#include <torch/torch.h>

namespace attune::nn {

Conv2d::Conv2d(std::int64_t in, std::int64_t out, const ConvolutionOptions& options) : options_(options) {
  weight = register_parameter("weight", torch::empty({out, in / options.groups, options.kernel, options.kernel}));
  if (options.with_bias) bias = register_parameter("bias", torch::empty({out}));
}

at::Tensor Conv2d::forward(const at::Tensor& x) {
  at::Tensor y = at::conv2d(x, weight, bias.defined() ? std::optional(bias) : std::nullopt, options_.stride, options_.padding, 1, options_.groups);
  if (!deltas_enabled_) return y;
  for (auto& delta : deltas_) y = delta->forward(*this, x, y);
  return y;
}

void Conv2d::add_delta(std::string name, std::shared_ptr<ConvolutionDelta> delta) { deltas_.push_back(register_module(std::move(name), std::move(delta))); }

void Conv2d::merge_deltas() {
  const torch::NoGradGuard no_grad;
  for (auto& delta : deltas_) delta->merge(*this);
  for (auto& child : named_children()) unregister_module(child.key());
  deltas_.clear();
}

std::vector<std::pair<std::string, std::shared_ptr<Conv2d>>> convolutions(torch::nn::Module& root) {
  std::vector<std::pair<std::string, std::shared_ptr<Conv2d>>> found;
  for (auto& item : root.named_modules("", false))
    if (auto convolution = std::dynamic_pointer_cast<Conv2d>(item.value())) found.emplace_back(item.key(), std::move(convolution));
  return found;
}

}  // namespace attune::nn
