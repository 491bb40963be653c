// Attention on devices. LibTorch's kernels for packed samples take the batch as it is; what they do
// not know is padded to samples of one length.
#include <attune/device.hpp>
#include <c10/util/Exception.h>
#include <torch/torch.h>

#include <map>
#include <mutex>
#include <tuple>

#include "device/device.hpp"
#include "nn/attention_kernels.hpp"

namespace attune::nn {
namespace {

bool is_on_device(const at::Tensor& x) { return !x.is_cpu() && !x.is_meta(); }

bool are_of_one_type(const PackedAttention& call) {
  return call.q.scalar_type() == call.k.scalar_type() &&
         call.q.scalar_type() == call.v.scalar_type();
}

// ---- Where samples lie, on the device

/// Of one batch, for all layers of its pass.
struct Offsets {
  std::vector<std::int64_t> starts;
  c10::Device device = c10::kCPU;
  at::Tensor ends;  // int32 [B + 1]: the starts
  at::Tensor
      rows;  // int64 [T]: each row's place among rows of samples that are as long as the longest
  at::Tensor lengths;  // int64 [B]
};

/// Of the batch that this thread saw last.
Offsets& offsets_of(const PackedAttention& call) {
  static thread_local auto& last = *new Offsets;  // outlives the device's library
  if (last.starts != call.starts || last.device != call.q.device())
    last = {call.starts, call.q.device(), {}, {}, {}};
  return last;
}

const at::Tensor& ends_of(const PackedAttention& call) {
  auto& offsets = offsets_of(call);
  if (!offsets.ends.defined())
    offsets.ends = on_device(at::tensor(call.starts, at::kInt), call.q.device());
  return offsets.ends;
}

const at::Tensor& rows_of(const PackedAttention& call) {
  auto& offsets = offsets_of(call);
  if (offsets.rows.defined()) return offsets.rows;
  const auto longest = call.longest();
  std::vector<std::int64_t> rows;
  for (std::int64_t sample = 0; sample < call.samples(); ++sample) {
    const auto i = static_cast<std::size_t>(sample);
    for (auto row = call.starts[i]; row < call.starts[i + 1]; ++row)
      rows.push_back(sample * longest + row - call.starts[i]);
  }
  return offsets.rows = on_device(at::tensor(rows, at::kLong), call.q.device());
}

const at::Tensor& lengths_of(const PackedAttention& call) {
  auto& offsets = offsets_of(call);
  if (!offsets.lengths.defined())
    offsets.lengths = on_device(at::tensor(call.starts, at::kLong).diff(), call.q.device());
  return offsets.lengths;
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

/// One sample of two tokens. LibTorch says by an error what a device, its dtype or a width does not
/// allow.
bool is_run(Kernel kernel, const at::Tensor& like) {
  const at::NoGradGuard no_grad;
  const at::Tensor x = at::zeros({2, 1, like.size(2)}, like.options());
  const at::Tensor ends = on_device(at::tensor({0, 2}, at::kInt), like.device());
  try {
    const AttentionOptions options;
    kernel == Kernel::flash ? flash(x, x, x, ends, 2, options, false)
                            : efficient(x, x, x, ends, 2, options);
    return true;
  } catch (const c10::Error&) {
    return false;
  }
}

/// Tried once for each kind of tensor.
bool serves(Kernel kernel, const at::Tensor& like) {
  using Kind = std::tuple<Kernel, c10::DeviceType, at::ScalarType, std::int64_t>;
  static std::mutex mutex;
  static std::map<Kind, bool> known;
  const std::lock_guard lock(mutex);
  const Kind kind{kernel, like.device().type(), like.scalar_type(), like.size(2)};
  const auto found = known.find(kind);
  return found != known.end() ? found->second
                              : known.emplace(kind, is_run(kernel, like)).first->second;
}

// ---- Padded

/// [T, heads, width] as [samples, heads, longest, width], with zeros behind shorter samples.
at::Tensor pad(const at::Tensor& x, const PackedAttention& call) {
  const auto samples = call.samples();
  const auto longest = call.longest();
  return x.new_zeros({samples * longest, x.size(1), x.size(2)})
      .index_copy(0, rows_of(call), x)
      .view({samples, longest, x.size(1), x.size(2)})
      .transpose(1, 2);
}

/// Rows behind a sample's end see something as well: without a key, a row would be NaN.
std::optional<at::Tensor> mask_of(const PackedAttention& call) {
  const auto longest = call.longest();
  if (call.options.causal) return visible(longest, longest, call.options, call.q.device());
  if (call.samples() * longest == call.q.size(0)) return std::nullopt;
  const at::Tensor keys = at::arange(longest, lengths_of(call).options());
  return (keys < lengths_of(call).unsqueeze(1)).view({call.samples(), 1, 1, longest});
}

}  // namespace

bool flash_serves(const PackedAttention& call) {
  constexpr std::int64_t alignment = 8;  // numbers
  return is_on_device(call.q) && are_of_one_type(call) && call.options.softcap == 0 &&
         at::isReducedFloatingType(call.q.scalar_type()) && call.q.size(2) % alignment == 0 &&
         serves(Kernel::flash, call.q);
}

at::Tensor attend_by_flash(const PackedAttention& call) {
  return flash(call.q, call.k, call.v, ends_of(call), call.longest(), call.options,
               call.is_windowed());
}

bool efficient_serves(const PackedAttention& call) {
  constexpr std::int64_t alignment = 8;  // numbers
  return is_on_device(call.q) && are_of_one_type(call) && call.options.softcap == 0 &&
         !call.is_windowed() && call.q.size(2) % alignment == 0 &&
         serves(Kernel::efficient, call.q);
}

at::Tensor attend_efficiently(const PackedAttention& call) {
  const auto repeats = call.q.size(1) / call.k.size(1);
  const auto repeated = [&](const at::Tensor& x) {
    return repeats == 1 ? x : x.repeat_interleave(repeats, 1);
  };
  return efficient(call.q, repeated(call.k), repeated(call.v), ends_of(call), call.longest(),
                   call.options);
}

bool padding_serves(const PackedAttention& call) {
  return is_on_device(call.q) && call.samples() > 1;
}

at::Tensor attend_padded(const PackedAttention& call) {
  const auto& options = call.options;
  const auto repeats = call.q.size(1) / call.k.size(1);
  const at::Tensor q = pad(call.q, call);
  const at::Tensor k = pad(call.k, call);
  const at::Tensor v = pad(call.v, call);
  const bool is_soft = options.softcap > 0;
  const bool is_plainly_causal = options.causal && !call.is_windowed() && call.longest() > 1;
  const auto mask = is_plainly_causal && !is_soft ? std::nullopt : mask_of(call);
  const at::Tensor y = is_soft
                           ? attend_softly(q, k.repeat_interleave(repeats, 1),
                                           v.repeat_interleave(repeats, 1), mask, options)
                           : at::scaled_dot_product_attention(q, k, v, mask, 0.0, is_plainly_causal,
                                                              options.scale, repeats > 1);
  return y.transpose(1, 2).flatten(0, 1).index_select(0, rows_of(call));
}

}  // namespace attune::nn
