// RMSNorm, rotation and SwiGLU are autograd functions of their own: LibTorch's composites keep several activations per call where one
// or two are enough.
#include <ATen/OpMathType.h>
#include <attune/error.hpp>
#include <attune/model.hpp>
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

/// Which keys a query sees: bool [rows, keys]; the last query is the last key. Absent: all of them.
std::optional<at::Tensor> visible(std::int64_t rows, std::int64_t keys, const AttentionOptions& options, at::Device device) {
  if (!options.causal) return std::nullopt;
  const bool windowed = options.window > 0 && options.window < keys;
  if (rows == 1 && !windowed) return std::nullopt;
  at::Tensor mask = at::ones({rows, keys}, at::TensorOptions().dtype(at::kBool).device(device)).tril(keys - rows);
  if (windowed) mask = mask.triu(keys - rows - options.window + 1);
  return mask;
}

/// Attention with the scores in full, for what the fused kernels do not know.
at::Tensor attend_softly(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::optional<at::Tensor>& mask, const AttentionOptions& options) {
  const auto repeats = q.size(1) / k.size(1);
  at::Tensor scores = at::matmul(q.transpose(0, 1), k.repeat_interleave(repeats, 1).permute({1, 2, 0})) * options.scale;
  scores = options.softcap * (scores / options.softcap).tanh();
  if (mask) scores = scores.masked_fill(mask->logical_not(), -std::numeric_limits<double>::infinity());
  const at::Tensor shares = at::softmax(scores, -1, at::toOpMathType(q.scalar_type())).to(q.scalar_type());
  return at::matmul(shares, v.repeat_interleave(repeats, 1).transpose(0, 1)).transpose(0, 1);
}

/// One sample: its queries against its keys, of which there may be more, earlier ones.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionOptions& options) {
  const auto rows = q.size(0), keys = k.size(0);
  const bool plain = options.causal && rows > 1 && rows == keys && (options.window == 0 || options.window >= keys);
  const bool soft = options.softcap > 0;
  const auto mask = plain && !soft ? std::nullopt : visible(rows, keys, options, q.device());
  if (soft) return attend_softly(q, k, v, mask, options);
  const auto heads_first = [](const at::Tensor& x) { return x.transpose(0, 1).unsqueeze(0); };
  const at::Tensor y = at::scaled_dot_product_attention(heads_first(q), heads_first(k), heads_first(v), mask, 0.0, plain, options.scale, q.size(1) != k.size(1));
  return y.squeeze(0).transpose(0, 1);
}

}  // namespace

RMSNorm::RMSNorm(std::int64_t width, double eps, double offset) : eps_(eps), offset_(offset) { weight = register_parameter("weight", torch::empty({width})); }
at::Tensor RMSNorm::forward(const at::Tensor& x) { return RMSNormFunction::apply(x, offset_ == 0 ? weight : weight + offset_, eps_); }

LayerNorm::LayerNorm(std::int64_t width, double eps) : eps_(eps) {
  weight = register_parameter("weight", torch::empty({width}));
  bias = register_parameter("bias", torch::empty({width}));
}
at::Tensor LayerNorm::forward(const at::Tensor& x) { return at::layer_norm(x, weight.sizes(), weight, bias, eps_); }

Embedding::Embedding(std::int64_t rows, std::int64_t width) { weight = register_parameter("weight", torch::empty({rows, width})); }
at::Tensor Embedding::forward(const at::Tensor& ids) { return at::embedding(weight, ids); }

BatchNorm2d::BatchNorm2d(std::int64_t width, double eps) : eps_(eps) {
  weight = register_parameter("weight", torch::empty({width}));
  bias = register_parameter("bias", torch::empty({width}));
  running_mean = register_buffer("running_mean", torch::empty({width}));
  running_var = register_buffer("running_var", torch::empty({width}));
}
at::Tensor BatchNorm2d::forward(const at::Tensor& x) { return at::batch_norm(x, weight, bias, running_mean, running_var, false, 0, eps_, false); }

RotaryEmbedding::RotaryEmbedding(std::int64_t head_width, std::int64_t context, double base)
    : RotaryEmbedding(at::pow(base, at::arange(0, head_width, 2, at::kFloat) / static_cast<double>(head_width)).reciprocal_(), context) {}

RotaryEmbedding::RotaryEmbedding(const at::Tensor& frequencies, std::int64_t context, double factor) {
  const at::Tensor angle = at::outer(at::arange(context, at::kFloat), frequencies);
  cosine_ = angle.cos() * factor;
  sine_ = angle.sin() * factor;
}

Rotation RotaryEmbedding::at(const at::Tensor& positions) {
  if (cosine_.device() != positions.device()) {
    cosine_ = cosine_.to(positions.device());
    sine_ = sine_.to(positions.device());
  }
  return {cosine_.index_select(0, positions), sine_.index_select(0, positions)};
}

at::Tensor rotate(const at::Tensor& x, const Rotation& rotation) { return RotateFunction::apply(x, rotation.cosine, rotation.sine); }

at::Tensor attention(std::int64_t block, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Batch& batch, const AttentionOptions& options) {
  at::Tensor prefix_k, prefix_v;
  if (batch.prefix) std::tie(prefix_k, prefix_v) = batch.prefix->keys_values(block);
  const auto after_prefix = [](const at::Tensor& prefix, const at::Tensor& x) { return prefix.defined() ? at::cat({prefix.to(x.scalar_type()), x}) : x; };
  if (batch.cache) {
    const bool begins = batch.cache->length(block) == 0;
    const auto [all_k, all_v] = batch.cache->append(block, begins ? after_prefix(prefix_k, k) : k, begins ? after_prefix(prefix_v, v) : v);
    return attend(q, all_k, all_v, options);
  }
  const auto samples = static_cast<std::size_t>(batch.samples());
  if (samples == 1) return attend(q, after_prefix(prefix_k, k), after_prefix(prefix_v, v), options);
  std::vector<std::int64_t> lengths;
  for (std::size_t sample = 0; sample < samples; ++sample) lengths.push_back(batch.starts[sample + 1] - batch.starts[sample]);
  // One split, not a slice per sample: its gradient is one concatenation.
  const auto queries = q.split_with_sizes(lengths), keys = k.split_with_sizes(lengths), values = v.split_with_sizes(lengths);
  std::vector<at::Tensor> attended;
  for (std::size_t sample = 0; sample < samples; ++sample)
    attended.push_back(attend(queries[sample], after_prefix(prefix_k, keys[sample]), after_prefix(prefix_v, values[sample]), options));
  return at::cat(attended);
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) { return SwiGLUFunction::apply(gate, up); }

void initialise_head(Linear& head) {
  const torch::NoGradGuard no_grad;
  head.weight.normal_(0, 0.02);
  if (head.bias.defined()) head.bias.zero_();
}

}  // namespace attune::nn
