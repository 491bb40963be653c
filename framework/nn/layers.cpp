// RMSNorm, rotation and SwiGLU are autograd functions of their own: LibTorch's composites keep several activations per call where one
// or two are enough.
#include <ATen/OpMathType.h>
#include <attune/error.hpp>
#include <attune/nn.hpp>
#include <torch/torch.h>

namespace attune::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Gradients below float32 are summed in float32.
at::Tensor widened(const at::Tensor& x) { return x.to(at::toOpMathType(x.scalar_type())); }

struct RMSNormFunction : torch::autograd::Function<RMSNormFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight, double eps) {
    const at::Tensor wide = widened(x);
    const at::Tensor scale = wide.square().mean(-1, true).add_(eps).rsqrt_();
    context->save_for_backward({x, weight, scale});
    return at::mul(wide, scale).to(x.scalar_type()) * weight;
  }

  // With n = x scale and g = dy weight: dx = scale (g - n mean(g n)), dweight = sum over rows of dy n.
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &scale = saved[2];
    const at::Tensor dy = widened(gradients[0]);
    const at::Tensor n = widened(x) * scale;
    at::Tensor dx, dweight;
    if (context->needs_input_grad(0)) {
      at::Tensor g = dy * weight;
      const at::Tensor projected = at::mul(g, n).mean(-1, true);
      dx = g.sub_(n * projected).mul_(scale).to(x.scalar_type());
    }
    if (context->needs_input_grad(1)) dweight = at::mul(dy, n).reshape({-1, n.size(-1)}).sum(0).to(weight.scalar_type());
    return {dx, dweight, {}};
  }
};

at::Tensor rotated(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine, bool backwards) {
  const at::Tensor wide = widened(x);
  const auto half = x.size(-1) / 2;
  const at::Tensor c = cosine.unsqueeze(1), s = sine.unsqueeze(1);
  const at::Tensor first = wide.narrow(-1, 0, half), second = wide.narrow(-1, half, half);
  at::Tensor y = at::empty(x.sizes(), wide.options());
  at::Tensor y_first = y.narrow(-1, 0, half), y_second = y.narrow(-1, half, half);
  const double direction = backwards ? -1 : 1;
  at::mul_out(y_first, first, c).addcmul_(second, s, -direction);
  at::mul_out(y_second, second, c).addcmul_(first, s, direction);
  return y.to(x.scalar_type());
}

// A rotation's gradient is the rotation back: nothing of x is kept.
struct RotateFunction : torch::autograd::Function<RotateFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine) {
    context->save_for_backward({cosine, sine});
    return rotated(x, cosine, sine, false);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    return {rotated(gradients[0], saved[0], saved[1], true), {}, {}};
  }
};

struct SwiGLUFunction : torch::autograd::Function<SwiGLUFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate, const at::Tensor& up) {
    context->save_for_backward({gate, up});
    return at::silu(gate).mul_(up);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto &gate = saved[0], &up = saved[1], &dy = gradients[0];
    return {at::silu_backward(dy * up, gate), at::silu(gate).mul_(dy)};
  }
};

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal, double scale) {
  const auto rows = q.size(0), keys = k.size(0);
  const auto heads_first = [](const at::Tensor& x) { return x.transpose(0, 1).unsqueeze(0); };
  std::optional<at::Tensor> mask;
  // is_causal aligns the first query with the first key; a last query alone sees every key anyhow.
  if (causal && rows > 1 && rows != keys) {
    mask = at::ones({rows, keys}, q.options().dtype(at::kBool)).tril(keys - rows);
  }
  const at::Tensor y = at::scaled_dot_product_attention(heads_first(q), heads_first(k), heads_first(v), mask, 0.0,
                                                        causal && rows > 1 && !mask, scale, q.size(1) != k.size(1));
  return y.squeeze(0).transpose(0, 1);
}

}  // namespace

RMSNorm::RMSNorm(std::int64_t width, double eps) : eps_(eps) { weight = register_parameter("weight", torch::empty({width})); }
at::Tensor RMSNorm::forward(const at::Tensor& x) { return RMSNormFunction::apply(x, weight, eps_); }

LayerNorm::LayerNorm(std::int64_t width, double eps) : eps_(eps) {
  weight = register_parameter("weight", torch::empty({width}));
  bias = register_parameter("bias", torch::empty({width}));
}
at::Tensor LayerNorm::forward(const at::Tensor& x) { return at::layer_norm(x, weight.sizes(), weight, bias, eps_); }

Embedding::Embedding(std::int64_t rows, std::int64_t width) { weight = register_parameter("weight", torch::empty({rows, width})); }
at::Tensor Embedding::forward(const at::Tensor& ids) { return at::embedding(weight, ids); }

RotaryEmbedding::RotaryEmbedding(std::int64_t head_width, std::int64_t context, double base) {
  const auto options = at::TensorOptions().dtype(at::kFloat);
  const at::Tensor frequency = at::pow(base, at::arange(0, head_width, 2, options) / static_cast<double>(head_width)).reciprocal_();
  const at::Tensor angle = at::outer(at::arange(context, options), frequency);
  cosine_ = angle.cos();
  sine_ = angle.sin();
}

Rotation RotaryEmbedding::at(const at::Tensor& positions) {
  if (cosine_.device() != positions.device()) {
    cosine_ = cosine_.to(positions.device());
    sine_ = sine_.to(positions.device());
  }
  return {cosine_.index_select(0, positions), sine_.index_select(0, positions)};
}

at::Tensor rotate(const at::Tensor& x, const Rotation& rotation) { return RotateFunction::apply(x, rotation.cosine, rotation.sine); }

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::vector<std::int64_t>& starts, bool causal,
                     double scale) {
  if (starts.size() == 2) return attend(q, k, v, causal, scale);
  ATTUNE_ASSERT(q.size(0) == k.size(0), "{} queries, {} keys in {} samples", q.size(0), k.size(0), starts.size() - 1);
  std::vector<std::int64_t> lengths;
  for (std::size_t sample = 0; sample + 1 < starts.size(); ++sample) lengths.push_back(starts[sample + 1] - starts[sample]);
  // One split, not a slice per sample: its gradient is one concatenation.
  const auto queries = q.split_with_sizes(lengths), keys = k.split_with_sizes(lengths), values = v.split_with_sizes(lengths);
  std::vector<at::Tensor> attended;
  for (std::size_t sample = 0; sample < lengths.size(); ++sample) {
    attended.push_back(attend(queries[sample], keys[sample], values[sample], causal, scale));
  }
  return at::cat(attended);
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) { return SwiGLUFunction::apply(gate, up); }

void initialise_head(Linear& head) {
  const torch::NoGradGuard no_grad;
  head.weight.normal_(0, 0.02);
  if (head.bias.defined()) head.bias.zero_();
}

}  // namespace attune::nn
