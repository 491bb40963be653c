// Attention on devices by LibTorch's kernels for packed samples, which take the batch as it is.
#include <attune/device.hpp>
#include <c10/util/Exception.h>
#include <torch/torch.h>

#include <map>
#include <mutex>

#include "core/out_of_memory.hpp"
#include "device/device.hpp"
#include "nn/attention_kernels.hpp"

namespace attune::nn {
namespace {

bool are_of_one_type(const PackedAttention& call) {
  return call.q.scalar_type() == call.k.scalar_type() &&
         call.q.scalar_type() == call.v.scalar_type();
}

// ---- Where samples lie, on the device

struct Ends {
  std::vector<std::int64_t> starts;
  c10::Device device = c10::kCPU;
  at::Tensor ends;  // int32 [B + 1]: the starts
};

const at::Tensor& ends_of(const PackedAttention& call) {
  auto& kept = kept_for<Ends>(call);
  if (!kept.ends.defined())
    kept.ends = on_device(at::tensor(call.starts, at::kInt), call.q.device());
  return kept.ends;
}

// ---- LibTorch's kernels

/// Its last dimension in one piece, as these kernels want it.
at::Tensor in_rows(const at::Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); }

at::Tensor flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                 const at::Tensor& ends, std::int64_t longest, const AttentionOptions& options,
                 bool is_windowed) {
  const auto before = is_windowed ? std::optional(options.window - 1) : std::nullopt;
  const auto after = is_windowed ? std::optional<std::int64_t>(0) : std::nullopt;
  return std::get<0>(at::_flash_attention_forward(in_rows(q), in_rows(k), in_rows(v), ends, ends,
                                                  longest, longest, 0.0, options.causal, false,
                                                  options.scale, before, after));
}

/// q, k, v: as many heads of each.
at::Tensor efficient(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const at::Tensor& ends, std::int64_t longest,
                     const AttentionOptions& options) {
  constexpr std::int64_t no_mask = 0;
  constexpr std::int64_t causal_mask = 1;
  const auto batched = [](const at::Tensor& x) { return in_rows(x).unsqueeze(0); };
  return std::get<0>(at::_efficient_attention_forward(
                         batched(q), batched(k), batched(v), std::nullopt, ends, ends, longest,
                         longest, 0.0, options.causal ? causal_mask : no_mask,
                         /*compute_log_sumexp=*/at::GradMode::is_enabled(), options.scale))
      .squeeze(0);
}

enum class Kernel { flash, efficient };

/// What a kernel may refuse: a device, a dtype, a width, grouped heads, a window.
struct Form {
  Kernel kernel;
  c10::DeviceType device;
  at::ScalarType type;
  std::int64_t width;
  std::int64_t repeats;
  bool causal;
  bool windowed;
  auto operator<=>(const Form&) const = default;
};

Form form_of(Kernel kernel, const PackedAttention& call) {
  return {kernel,
          call.q.device().type(),
          call.q.scalar_type(),
          call.q.size(2),
          call.q.size(1) / call.k.size(1),
          call.options.causal,
          call.is_windowed()};
}

/// Forward and backward, for one sample of two tokens. LibTorch says by an error what it does not
/// allow, and some of it only in the backward pass.
void try_out(const Form& form, const at::Tensor& like) {
  const at::AutoGradMode with_gradients(true);
  const auto zeros = [&](std::int64_t heads) {
    return at::zeros({2, heads, form.width}, like.options()).set_requires_grad(true);
  };
  const at::Tensor q = zeros(form.repeats);
  const at::Tensor k = zeros(form.kernel == Kernel::flash ? 1 : form.repeats);
  const at::Tensor v = at::zeros_like(k).set_requires_grad(true);
  const at::Tensor ends = on_device(at::tensor({0, 2}, at::kInt), like.device());
  AttentionOptions options;
  options.causal = form.causal;
  options.window = form.windowed ? 1 : 0;
  const at::Tensor y = form.kernel == Kernel::flash
                           ? flash(q, k, v, ends, 2, options, form.windowed)
                           : efficient(q, k, v, ends, 2, options);
  torch::autograd::grad({y}, {q, k, v}, {at::zeros_like(y)});
}

bool is_run(const Form& form, const at::Tensor& like) {
  try {
    try_out(form, like);
    return true;
  } catch (const c10::AcceleratorError&) {
    throw;  // the device itself
  } catch (const c10::Error& error) {
    if (is_out_of_memory(error)) throw;
    return false;
  }
}

/// Tried once for each form.
bool serves(Kernel kernel, const PackedAttention& call) {
  static std::mutex mutex;
  static std::map<Form, bool> known;
  const std::lock_guard lock(mutex);
  const auto form = form_of(kernel, call);
  const auto found = known.find(form);
  return found != known.end() ? found->second
                              : known.emplace(form, is_run(form, call.q)).first->second;
}

}  // namespace

bool flash_serves(const PackedAttention& call) {
  constexpr std::int64_t alignment = 8;  // numbers
  return is_on_device(call.q) && are_of_one_type(call) && call.options.softcap == 0 &&
         at::isReducedFloatingType(call.q.scalar_type()) && call.q.size(2) % alignment == 0 &&
         serves(Kernel::flash, call);
}

at::Tensor attend_by_flash(const PackedAttention& call) {
  return flash(call.q, call.k, call.v, ends_of(call), call.longest(), call.options,
               call.is_windowed());
}

bool efficient_serves(const PackedAttention& call) {
  constexpr std::int64_t alignment = 8;  // numbers
  return is_on_device(call.q) && are_of_one_type(call) && call.options.softcap == 0 &&
         !call.is_windowed() && call.q.size(2) % alignment == 0 && serves(Kernel::efficient, call);
}

at::Tensor attend_efficiently(const PackedAttention& call) {
  const auto repeats = call.q.size(1) / call.k.size(1);
  const auto repeated = [&](const at::Tensor& x) {
    return repeats == 1 ? x : x.repeat_interleave(repeats, 1);
  };
  return efficient(call.q, repeated(call.k), repeated(call.v), ends_of(call), call.longest(),
                   call.options);
}

}  // namespace attune::nn
