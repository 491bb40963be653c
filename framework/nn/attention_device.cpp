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

/// As the kernels want it.
struct Lengths {
  // int32 [B + 1]: the starts
  at::Tensor of_queries;
  at::Tensor of_keys;
  std::int64_t most_queries = 0;
  std::int64_t most_keys = 0;
};

Lengths lengths_of(const std::vector<std::int64_t>& starts,
                   const std::vector<std::int64_t>& key_starts, c10::Device device) {
  const auto there = [&](const std::vector<std::int64_t>& rows) {
    return on_device(at::tensor(rows, at::kInt), device);
  };
  const at::Tensor of_queries = there(starts);
  return {of_queries, key_starts == starts ? of_queries : there(key_starts), longest_of(starts),
          longest_of(key_starts)};
}

const Lengths& lengths_of(const PackedAttention& call) {
  auto& kept = kept_for<Lengths>(call);
  if (!kept.of_queries.defined()) kept = lengths_of(call.starts, call.key_starts, call.q.device());
  return kept;
}

// ---- LibTorch's kernels

/// Its last dimension in one piece, as these kernels want it.
at::Tensor in_rows(const at::Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); }

at::Tensor flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                 const Lengths& lengths, const AttentionOptions& options, bool is_windowed) {
  const auto before = is_windowed ? std::optional(options.window - 1) : std::nullopt;
  const auto after = is_windowed ? std::optional<std::int64_t>(0) : std::nullopt;
  return std::get<0>(at::_flash_attention_forward(
      in_rows(q), in_rows(k), in_rows(v), lengths.of_queries, lengths.of_keys, lengths.most_queries,
      lengths.most_keys, 0.0, options.causal, false, options.scale, before, after));
}

/// q, k, v: as many heads of each.
at::Tensor efficient(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const Lengths& lengths, const AttentionOptions& options) {
  enum Mask : std::int64_t { none, to_own_key, to_last_key };  // of as many keys, of more
  const bool has_more_keys = lengths.most_keys > lengths.most_queries;
  const Mask mask = !options.causal ? none : has_more_keys ? to_last_key : to_own_key;
  const auto batched = [](const at::Tensor& x) { return in_rows(x).unsqueeze(0); };
  return std::get<0>(at::_efficient_attention_forward(
                         batched(q), batched(k), batched(v), std::nullopt, lengths.of_queries,
                         lengths.of_keys, lengths.most_queries, lengths.most_keys, 0.0, mask,
                         /*compute_log_sumexp=*/at::GradMode::is_enabled(), options.scale))
      .squeeze(0);
}

enum class Kernel { flash, efficient };

/// What a kernel may refuse: a device, a dtype, a width, grouped heads, a window, more keys.
struct Form {
  Kernel kernel;
  c10::DeviceType device;
  at::ScalarType type;
  std::int64_t width;
  std::int64_t repeats;
  bool causal;
  bool windowed;
  bool has_more_keys;
  auto operator<=>(const Form&) const = default;
};

Form form_of(Kernel kernel, const PackedAttention& call) {
  return {kernel,
          call.q.device().type(),
          call.q.scalar_type(),
          call.q.size(2),
          call.q.size(1) / call.k.size(1),
          call.options.causal,
          call.is_windowed(),
          call.has_more_keys()};
}

/// Forward and backward, for one sample of two queries. LibTorch says by an error what it does not
/// allow, and some of it only in the backward pass.
void try_out(const Form& form, const at::Tensor& like) {
  const at::AutoGradMode with_gradients(true);
  const auto zeros = [&](std::int64_t rows, std::int64_t heads) {
    return at::zeros({rows, heads, form.width}, like.options()).set_requires_grad(true);
  };
  const std::int64_t keys = form.has_more_keys ? 3 : 2;
  const at::Tensor q = zeros(2, form.repeats);
  const at::Tensor k = zeros(keys, form.kernel == Kernel::flash ? 1 : form.repeats);
  const at::Tensor v = at::zeros_like(k).set_requires_grad(true);
  const auto lengths = lengths_of({0, 2}, {0, keys}, like.device());
  AttentionOptions options;
  options.causal = form.causal;
  options.window = form.windowed ? 1 : 0;
  const at::Tensor y = form.kernel == Kernel::flash
                           ? flash(q, k, v, lengths, options, form.windowed)
                           : efficient(q, k, v, lengths, options);
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

/// Tried once for each form. A plan, which may be made where there is no device, takes it as
/// served.
bool serves(Kernel kernel, const PackedAttention& call) {
  if (call.q.is_meta()) return true;
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
  return is_on_accelerator(call.q) && are_of_one_type(call) && call.options.softcap == 0 &&
         at::isReducedFloatingType(call.q.scalar_type()) && call.q.size(2) % alignment == 0 &&
         serves(Kernel::flash, call);
}

namespace {

/// Of the batch as one sample: what is kept does not depend on where samples begin.
at::Tensor planned(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                   const AttentionOptions& options) {
  const auto heads_first = [](const at::Tensor& x) { return x.transpose(0, 1).unsqueeze(0); };
  return planned_attention(heads_first(q), heads_first(k), heads_first(v), std::nullopt, true,
                           options)
      .squeeze(0)
      .transpose(0, 1);
}

}  // namespace

at::Tensor attend_by_flash(const PackedAttention& call) {
  if (call.q.is_meta()) return planned(call.q, call.k, call.v, call.options);
  return flash(call.q, call.k, call.v, lengths_of(call), call.options, call.is_windowed());
}

bool efficient_serves(const PackedAttention& call) {
  constexpr std::int64_t alignment = 8;  // numbers
  return is_on_accelerator(call.q) && are_of_one_type(call) && call.options.softcap == 0 &&
         !call.is_windowed() && call.q.size(2) % alignment == 0 && serves(Kernel::efficient, call);
}

at::Tensor attend_efficiently(const PackedAttention& call) {
  const auto repeats = call.q.size(1) / call.k.size(1);
  const auto repeated = [&](const at::Tensor& x) {
    return repeats == 1 ? x : x.repeat_interleave(repeats, 1);
  };
  const at::Tensor k = repeated(call.k);
  const at::Tensor v = repeated(call.v);
  if (call.q.is_meta()) return planned(call.q, k, v, call.options);
  return efficient(call.q, k, v, lengths_of(call), call.options);
}

}  // namespace attune::nn
