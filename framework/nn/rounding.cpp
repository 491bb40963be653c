#include "nn/rounding.hpp"

#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <algorithm>

#include "kernels/rows.hpp"

namespace attune::nn {
namespace {

constexpr std::int64_t thresholds = 1 << 16;
static_assert(kernels::golden_ratio % 2 == 1, "so that every threshold comes up once");

// Of the values that are worked on at a time, which bounds what that takes beside them.
constexpr std::int64_t chunk = std::int64_t{1} << 22;
static_assert(chunk % thresholds == 0);

void round_on_host(const at::Tensor& values, std::int64_t first, const at::Tensor& result) {
  const float* x = values.const_data_ptr<float>();
  auto* y = reinterpret_cast<std::uint16_t*>(result.data_ptr<at::BFloat16>());
  at::parallel_for(0, values.numel(), thresholds, [&](std::int64_t from, std::int64_t to) {
    kernels::round_evenly(x + from, static_cast<std::uint64_t>(first + from), y + from,
                          static_cast<std::size_t>(to - from));
  });
}

/// Of the values from `first` on, as many as there are different ones.
at::Tensor thresholds_from(std::int64_t first, c10::Device device) {
  const auto options = at::TensorOptions(at::kLong).device(device);
  return at::arange(first, first + thresholds, options)
      .mul_(static_cast<std::int64_t>(kernels::golden_ratio))
      .bitwise_and_(thresholds - 1)
      .to(at::kInt);
}

at::Tensor round_on_device(const at::Tensor& values, const at::Tensor& of_thresholds) {
  auto bits = values.view(at::kInt).clone();
  const auto whole = bits.numel() / thresholds * thresholds;
  const auto rest = bits.numel() - whole;
  if (whole > 0) bits.narrow(0, 0, whole).view({-1, thresholds}).add_(of_thresholds);
  bits.narrow(0, whole, rest).add_(of_thresholds.narrow(0, 0, rest));
  return bits.bitwise_right_shift_(16).to(at::kShort).view(at::kBFloat16);
}

}  // namespace

at::Tensor rounded_evenly(const at::Tensor& values, std::int64_t first) {
  const at::NoGradGuard no_grad;
  const auto flat = values.contiguous().view(-1);
  auto result = at::empty(flat.sizes(), flat.options().dtype(at::kBFloat16));
  if (flat.is_cpu()) {
    round_on_host(flat, first, result);
  } else {
    const auto of_thresholds = thresholds_from(first, flat.device());
    for (std::int64_t from = 0; from < flat.numel(); from += chunk) {
      const auto count = std::min(chunk, flat.numel() - from);
      result.narrow(0, from, count)
          .copy_(round_on_device(flat.narrow(0, from, count), of_thresholds));
    }
  }
  return result.view(values.sizes());
}

}  // namespace attune::nn
