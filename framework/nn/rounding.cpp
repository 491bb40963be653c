#include "nn/rounding.hpp"

#include <ATen/Parallel.h>
#include <attune/nn.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <limits>

#include "kernels/rows.hpp"

namespace attune::nn {
namespace {

constexpr std::int64_t thresholds = 1 << 16;
static_assert(kernels::golden_ratio % 2 == 1, "so that every threshold comes up once");

// Of the values that are worked on at a time, which bounds what that takes beside them.
constexpr std::int64_t chunk = std::int64_t{1} << 22;
static_assert(chunk % thresholds == 0);

std::uint16_t* bits_of(const at::Tensor& rounded) {
  return reinterpret_cast<std::uint16_t*>(rounded.data_ptr<at::BFloat16>());
}

/// work(from, count, place) over pieces of values on the host, in several threads.
template <class Work>
void over_host(std::int64_t size, std::int64_t first, const Work& work) {
  at::parallel_for(0, size, thresholds, [&](std::int64_t from, std::int64_t to) {
    work(from, static_cast<std::size_t>(to - from), static_cast<std::uint64_t>(first + from));
  });
}

/// Values from `first` on, in pieces.
class OnDevice {
 public:
  OnDevice(std::int64_t first, const at::Tensor& values)
      : thresholds_(at::arange(first, first + std::min(thresholds, values.numel()),
                               at::TensorOptions(at::kLong).device(values.device()))
                        .mul_(static_cast<std::int64_t>(kernels::golden_ratio))
                        .bitwise_and_(thresholds - 1)
                        .to(at::kInt)) {}

  /// values: contiguous, in one dimension, a multiple of `thresholds` behind the first.
  at::Tensor rounded(const at::Tensor& values) const {
    auto bits = values.view(at::kInt).clone();
    const auto whole = bits.numel() / thresholds * thresholds;
    const auto rest = bits.numel() - whole;
    if (whole > 0) bits.narrow(0, 0, whole).view({-1, thresholds}).add_(thresholds_);
    bits.narrow(0, whole, rest).add_(thresholds_.narrow(0, 0, rest));
    return bits.bitwise_right_shift_(16)
        .to(at::kShort)
        .view(at::kBFloat16)
        .masked_fill_(values.isnan(), std::numeric_limits<double>::quiet_NaN());
  }

  /// work(from, count)
  template <class Work>
  static void in_chunks(std::int64_t size, const Work& work) {
    for (std::int64_t from = 0; from < size; from += chunk)
      work(from, std::min(chunk, size - from));
  }

 private:
  at::Tensor thresholds_;
};

void round_flat(const at::Tensor& result, const at::Tensor& values, std::int64_t first) {
  if (values.is_cpu()) {
    const float* x = values.const_data_ptr<float>();
    auto* y = bits_of(result);
    return over_host(values.numel(), first,
                     [&](std::int64_t from, std::size_t count, std::uint64_t place) {
                       kernels::round_evenly(x + from, place, y + from, count);
                     });
  }
  const OnDevice device(first, values);
  OnDevice::in_chunks(values.numel(), [&](std::int64_t from, std::int64_t count) {
    result.narrow(0, from, count).copy_(device.rounded(values.narrow(0, from, count)));
  });
}

void follow_flat(const at::Tensor& values, const at::Tensor& rounded, std::int64_t first) {
  if (values.is_cpu()) {
    auto* x = values.data_ptr<float>();
    const auto* y = bits_of(rounded);
    return over_host(values.numel(), first,
                     [&](std::int64_t from, std::size_t count, std::uint64_t place) {
                       kernels::follow_rounded(x + from, place, y + from, count);
                     });
  }
  const OnDevice device(first, values);
  OnDevice::in_chunks(values.numel(), [&](std::int64_t from, std::int64_t count) {
    auto ours = values.narrow(0, from, count);
    const auto theirs = rounded.narrow(0, from, count);
    at::where_out(ours, at::ne(device.rounded(ours), theirs), theirs.to(at::kFloat), ours);
  });
}

class Rounded final : public torch::autograd::Function<Rounded> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor& values) {
    return rounded_evenly(values);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 torch::autograd::variable_list gradients) {
    return {gradients[0].to(at::kFloat)};
  }
};

}  // namespace

at::Tensor rounded_evenly(const at::Tensor& values, std::int64_t first) {
  const at::NoGradGuard no_grad;
  const auto result = at::empty(values.sizes(), values.options().dtype(at::kBFloat16));
  if (!values.is_meta()) round_flat(result.view(-1), values.contiguous().view(-1), first);
  return result;
}

void round_evenly_into(const at::Tensor& result, const at::Tensor& values, std::int64_t first) {
  const at::NoGradGuard no_grad;
  if (result.is_contiguous() && values.is_contiguous())
    round_flat(result.view(-1), values.view(-1), first);
  else
    at::Tensor(result).copy_(rounded_evenly(values, first));
}

void follow_rounded(const at::Tensor& values, const at::Tensor& rounded, std::int64_t first) {
  const at::NoGradGuard no_grad;
  const auto flat = values.contiguous().view(-1);
  follow_flat(flat, rounded.contiguous().view(-1), first);
  if (!values.is_contiguous()) at::Tensor(values).copy_(flat.view(values.sizes()));
}

at::Tensor rounded(const at::Tensor& values, at::ScalarType dtype) {
  const bool is_evenly = values.scalar_type() == at::kFloat && dtype == at::kBFloat16;
  return is_evenly ? Rounded::apply(values) : values.to(dtype);
}

}  // namespace attune::nn
