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

}  // namespace attune::nn
