// RMSNorm, rotation and SwiGLU are autograd functions of their own: LibTorch's composites keep
// several activations per call where one or two are enough, and pass over memory for each of their
// steps. Float32 on the CPU goes to our kernels, the rest to LibTorch's.
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <attune/device.hpp>
#include <attune/error.hpp>
#include <attune/model.hpp>
#include <attune/nn.hpp>
#include <attune/parameter.hpp>
#include <torch/torch.h>

#include <algorithm>

#include "device/device.hpp"
#include "kernels/rows.hpp"
#include "nn/planned.hpp"

#ifndef INTRA_OP_PARALLEL
#error "at::parallel_for is single-threaded in this build: compile with OpenMP, as LibTorch was"
#endif

namespace attune::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Gradients below float32 are summed in float32.
at::Tensor widened(const at::Tensor& x) { return x.to(at::toOpMathType(x.scalar_type())); }

template <class... Tensors>
bool serves_kernels(const Tensors&... tensors) {
  return ((is_near(tensors) && tensors.scalar_type() == at::kFloat && tensors.is_contiguous()) &&
          ...);
}

/// work(first, end) for parts of `count` things of `size` numbers each: enough for a thread to be
/// worth its while.
template <class Work>
void share_out_rows(std::int64_t count, std::int64_t size, Work&& work) {
  at::parallel_for(0, count, std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, size)),
                   std::forward<Work>(work));
}

at::Tensor fused_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps,
                          const at::Tensor& scale) {
  const auto width = x.size(-1);
  const at::Tensor y = at::empty_like(x);
  if (x.is_meta()) return y;
  share_out_rows(scale.numel(), width, [&](std::int64_t first, std::int64_t end) {
    kernels::rms_norm(x.const_data_ptr<float>() + first * width, weight.const_data_ptr<float>(),
                      static_cast<float>(eps), y.data_ptr<float>() + first * width,
                      scale.data_ptr<float>() + first, end - first, width);
  });
  return y;
}

/// Rows whose part of dweight is summed on its own: fixed, so that the sum does not depend on the
/// number of threads.
constexpr std::int64_t weight_rows = 64;

std::pair<at::Tensor, at::Tensor> fused_rms_norm_backward(const at::Tensor& x,
                                                          const at::Tensor& weight,
                                                          const at::Tensor& scale,
                                                          const at::Tensor& dy, bool with_dx,
                                                          bool with_dweight) {
  const auto width = x.size(-1);
  const auto rows = scale.numel();
  const auto parts = (rows + weight_rows - 1) / weight_rows;
  const at::Tensor dx = with_dx ? at::empty_like(x) : at::Tensor();
  const at::Tensor dweights = with_dweight ? at::zeros({parts, width}, x.options()) : at::Tensor();
  if (x.is_meta()) return {dx, with_dweight ? dweights.sum(0) : at::Tensor()};
  share_out_rows(parts, weight_rows * width, [&](std::int64_t part, std::int64_t end) {
    for (; part < end; ++part) {
      const auto first = part * weight_rows;
      kernels::rms_norm_backward(
          x.const_data_ptr<float>() + first * width, weight.const_data_ptr<float>(),
          scale.const_data_ptr<float>() + first, dy.const_data_ptr<float>() + first * width,
          with_dx ? dx.data_ptr<float>() + first * width : nullptr,
          with_dweight ? dweights.data_ptr<float>() + part * width : nullptr,
          std::min(weight_rows, rows - first), width);
    }
  });
  return {dx, with_dweight ? dweights.sum(0) : at::Tensor()};
}

/// LibTorch's kernel of one pass over memory, for devices that have it.
bool serves_device_kernel(const at::Tensor& x, const at::Tensor& weight) {
  return is_on_accelerator(x) && x.scalar_type() == weight.scalar_type() && x.is_contiguous() &&
         (x.is_meta() || device::has_operator(x.device(), "aten::_fused_rms_norm"));
}

/// The normed rows, and the scale of each.
std::tuple<at::Tensor, at::Tensor> device_rms_norm(const at::Tensor& x, const at::Tensor& weight,
                                                   double eps) {
  if (!x.is_meta()) return at::_fused_rms_norm(x, {x.size(-1)}, weight, eps);
  auto rows = x.sizes().vec();
  rows.back() = 1;
  return {at::empty_like(x), at::empty(rows, x.options().dtype(at::toOpMathType(x.scalar_type())))};
}

/// Gradients of x and of the weight.
std::tuple<at::Tensor, at::Tensor> device_rms_norm_backward(const at::Tensor& x,
                                                            const at::Tensor& weight,
                                                            const at::Tensor& scale,
                                                            const at::Tensor& dy,
                                                            std::array<bool, 2> wanted) {
  if (!x.is_meta()) return at::_fused_rms_norm_backward(dy, x, {x.size(-1)}, scale, weight, wanted);
  return {wanted[0] ? at::empty_like(x) : at::Tensor(),
          wanted[1] ? at::empty_like(weight) : at::Tensor()};
}

struct RMSNormFunction : torch::autograd::Function<RMSNormFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            double eps) {
    if (serves_kernels(x, weight)) {
      const at::Tensor scale =
          at::empty(x.sizes().slice(0, x.dim() - 1), x.options()).unsqueeze(-1);
      context->save_for_backward({x, weight, scale});
      return fused_rms_norm(x, weight, eps, scale);
    }
    if (serves_device_kernel(x, weight)) {
      const auto [y, scale] = device_rms_norm(x, weight, eps);
      context->save_for_backward({x, weight, scale});
      return y;
    }
    const at::Tensor wide = widened(x);
    const at::Tensor scale = wide.square().mean(-1, true).add_(eps).rsqrt_();
    context->save_for_backward({x, weight, scale});
    return at::mul(wide, scale).to(x.scalar_type()) * weight;
  }

  // With n = x scale and g = dy weight: dx = scale (g - n mean(g n)), dweight = sum over rows of dy
  // n.
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto& x = saved[0];
    const auto& weight = saved[1];
    const auto& scale = saved[2];
    if (serves_kernels(x, weight, scale)) {
      const auto [dx, dweight] =
          fused_rms_norm_backward(x, weight, scale, gradients[0].contiguous(),
                                  context->needs_input_grad(0), context->needs_input_grad(1));
      return {dx, dweight, {}};
    }
    if (serves_device_kernel(x, weight)) {
      const auto [dx, dweight] =
          device_rms_norm_backward(x, weight, scale, gradients[0].contiguous(),
                                   {context->needs_input_grad(0), context->needs_input_grad(1)});
      return {dx, dweight, {}};
    }
    const at::Tensor dy = widened(gradients[0]);
    const at::Tensor n = widened(x) * scale;
    at::Tensor dx;
    at::Tensor dweight;
    if (context->needs_input_grad(0)) {
      at::Tensor g = dy * weight;
      const at::Tensor projected = at::mul(g, n).mean(-1, true);
      dx = g.sub_(n * projected).mul_(scale).to(x.scalar_type());
    }
    if (context->needs_input_grad(1))
      dweight = at::mul(dy, n).reshape({-1, n.size(-1)}).sum(0).to(weight.scalar_type());
    return {dx, dweight, {}};
  }
};

at::Tensor rotated(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine,
                   bool backwards) {
  if (serves_kernels(x, cosine, sine)) {
    const auto heads = x.size(1);
    const auto half = x.size(2) / 2;
    const at::Tensor y = at::empty_like(x);
    if (x.is_meta()) return y;
    share_out_rows(x.size(0), heads * 2 * half, [&](std::int64_t first, std::int64_t end) {
      const auto place = first * heads * 2 * half;
      kernels::rotate(x.const_data_ptr<float>() + place,
                      cosine.const_data_ptr<float>() + first * half,
                      sine.const_data_ptr<float>() + first * half, y.data_ptr<float>() + place,
                      end - first, heads, half, backwards);
    });
    return y;
  }
  const at::Tensor wide = widened(x);
  const auto half = x.size(-1) / 2;
  const at::Tensor c = cosine.unsqueeze(1);
  const at::Tensor s = sine.unsqueeze(1);
  const at::Tensor first = wide.narrow(-1, 0, half);
  const at::Tensor second = wide.narrow(-1, half, half);
  at::Tensor y = at::empty(x.sizes(), wide.options());
  at::Tensor y_first = y.narrow(-1, 0, half);
  at::Tensor y_second = y.narrow(-1, half, half);
  const double direction = backwards ? -1 : 1;
  at::mul_out(y_first, first, c).addcmul_(second, s, -direction);
  at::mul_out(y_second, second, c).addcmul_(first, s, direction);
  return y.to(x.scalar_type());
}

// A rotation's gradient is the rotation back: nothing of x is kept.
struct RotateFunction : torch::autograd::Function<RotateFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cosine,
                            const at::Tensor& sine) {
    context->save_for_backward({cosine, sine});
    return rotated(x, cosine, sine, false);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    return {rotated(gradients[0], saved[0], saved[1], true), {}, {}};
  }
};

struct SwiGLUFunction : torch::autograd::Function<SwiGLUFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate,
                            const at::Tensor& up) {
    context->save_for_backward({gate, up});
    if (!serves_kernels(gate, up)) return at::silu(gate).mul_(up);
    const at::Tensor y = at::empty_like(gate);
    if (gate.is_meta()) return y;
    share_out_rows(gate.numel(), 1, [&](std::int64_t first, std::int64_t end) {
      kernels::swiglu(gate.const_data_ptr<float>() + first, up.const_data_ptr<float>() + first,
                      y.data_ptr<float>() + first, end - first);
    });
    return y;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto& gate = saved[0];
    const auto& up = saved[1];
    const auto& dy = gradients[0];
    if (!serves_kernels(gate, up, dy))
      return {at::silu_backward(dy * up, gate), at::silu(gate).mul_(dy)};
    const at::Tensor dgate = at::empty_like(gate);
    const at::Tensor dup = at::empty_like(gate);
    if (gate.is_meta()) return {dgate, dup};
    share_out_rows(gate.numel(), 1, [&](std::int64_t first, std::int64_t end) {
      kernels::swiglu_backward(gate.const_data_ptr<float>() + first,
                               up.const_data_ptr<float>() + first,
                               dy.const_data_ptr<float>() + first, dgate.data_ptr<float>() + first,
                               dup.data_ptr<float>() + first, end - first);
    });
    return {dgate, dup};
  }
};

}  // namespace

RMSNorm::RMSNorm(std::int64_t width, double eps, double offset) : eps_(eps), offset_(offset) {
  weight = register_parameter("weight", new_parameter({width}));
}
at::Tensor RMSNorm::forward(const at::Tensor& x) {
  return RMSNormFunction::apply(x, offset_ == 0 ? weight : weight + offset_, eps_);
}

LayerNorm::LayerNorm(std::int64_t width, double eps) : eps_(eps) {
  weight = register_parameter("weight", new_parameter({width}));
  bias = register_parameter("bias", new_parameter({width}));
}
at::Tensor LayerNorm::forward(const at::Tensor& x) {
  return at::layer_norm(x, weight.sizes(), weight, bias, eps_);
}

Embedding::Embedding(std::int64_t rows, std::int64_t width) {
  weight = register_parameter("weight", new_parameter({rows, width}));
}
at::Tensor Embedding::forward(const at::Tensor& ids, ForwardContext& context) {
  return context.by_owner(ids, [&](const at::Tensor& rows, ForwardContext& own) {
    return changed(rows, at::embedding(weight, rows), own);
  });
}

BatchNorm2d::BatchNorm2d(std::int64_t width, double eps) : eps_(eps) {
  weight = register_parameter("weight", new_parameter({width}));
  bias = register_parameter("bias", new_parameter({width}));
  running_mean = register_buffer("running_mean", new_parameter({width}));
  running_var = register_buffer("running_var", new_parameter({width}));
}
at::Tensor BatchNorm2d::forward(const at::Tensor& x) {
  return at::batch_norm(x, weight, bias, running_mean, running_var, false, 0, eps_, false);
}

RotaryEmbedding::RotaryEmbedding(std::int64_t head_width, std::int64_t context, double base)
    : RotaryEmbedding(
          at::pow(base, at::arange(0, head_width, 2, at::kFloat) / static_cast<double>(head_width))
              .reciprocal_(),
          context) {}

RotaryEmbedding::RotaryEmbedding(const at::Tensor& frequencies, std::int64_t context,
                                 double factor) {
  const auto here = at::TensorOptions(at::kFloat).device(ParametersOn::now());
  const at::Tensor angle = at::outer(at::arange(context, here), frequencies.to(here.device()));
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

at::Tensor rotate(const at::Tensor& x, const Rotation& rotation) {
  return RotateFunction::apply(x, rotation.cosine, rotation.sine);
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  return SwiGLUFunction::apply(gate, up);
}

void initialise_head(Linear& head) {
  const torch::NoGradGuard no_grad;
  drawn_on_host(head.weight, [](at::Tensor& values) { values.normal_(0, 0.02); });
  if (head.bias.defined()) head.bias.zero_();
}

}  // namespace attune::nn
