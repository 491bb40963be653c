#include <attune/nn.hpp>
#include <attune/parameter.hpp>
#include <torch/torch.h>

namespace attune::nn {

Conv2d::Conv2d(std::int64_t in, std::int64_t out, const ConvolutionOptions& options)
    : options_(options) {
  weight = register_parameter(
      "weight", new_parameter({out, in / options.groups, options.kernel, options.kernel}));
  if (options.with_bias) bias = register_parameter("bias", new_parameter({out}));
}

at::Tensor Conv2d::forward(const at::Tensor& x, ForwardContext& context) {
  const auto maybe_bias = bias.defined() ? std::optional(bias) : std::nullopt;
  return context.by_owner(x, [&](const at::Tensor& rows, ForwardContext& own) {
    return changed(
        rows,
        at::conv2d(rows, weight, maybe_bias, options_.stride, options_.padding, 1, options_.groups),
        own);
  });
}

}  // namespace attune::nn
