// Attention within samples that lie end to end: a kernel for the whole batch where there is one,
// otherwise sample by sample.
#include <ATen/OpMathType.h>
#include <attune/device.hpp>
#include <attune/model.hpp>
#include <attune/nn.hpp>
#include <torch/torch.h>

#include <limits>

#include "nn/attention_kernels.hpp"

namespace attune::nn {
namespace {

constexpr AttentionKernel kernels[] = {{"rows", &rows_serve, &attend_by_rows},
                                       {"flash", &flash_serves, &attend_by_flash},
                                       {"efficient", &efficient_serves, &attend_efficiently},
                                       {"padded", &padding_serves, &attend_padded}};

/// Of virtual tokens; undefined without them.
KeysValues first_keys(const ForwardContext& context) {
  return context.virtual_tokens ? context.virtual_tokens->keys_values(context.block())
                                : KeysValues{};
}

/// Whether the rows are those of samples, none of which is empty.
bool is_packed(const at::Tensor& q, const ForwardContext& context) {
  const auto& starts = context.batch().starts;
  if (context.cache || context.batch().length() != q.size(0)) return false;
  for (std::size_t i = 0; i + 1 < starts.size(); ++i)
    if (starts[i] == starts[i + 1]) return false;
  return starts.size() > 1;
}

std::optional<at::Tensor> attend_by_kernel(const PackedAttention& call) {
  const auto* const kernel = attention_kernel(call);
  return kernel ? std::optional(kernel->attend(call)) : std::nullopt;
}

/// Where each sample has `first` rows more in front.
std::vector<std::int64_t> starts_behind(const std::vector<std::int64_t>& starts,
                                        std::int64_t first) {
  auto longer = starts;
  for (std::size_t i = 0; i < longer.size(); ++i) longer[i] += static_cast<std::int64_t>(i) * first;
  return longer;
}

/// int64: which rows of the virtual tokens' and the batch's, one behind the other, make the
/// samples' keys.
at::Tensor rows_with_first(const std::vector<std::int64_t>& starts, std::int64_t first,
                           c10::Device device) {
  std::vector<std::int64_t> rows;
  for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
    for (std::int64_t row = 0; row < first; ++row) rows.push_back(row);
    for (auto row = starts[i]; row < starts[i + 1]; ++row) rows.push_back(first + row);
  }
  return on_device(at::tensor(rows, at::kLong), device);
}

/// All samples at once; absent where no kernel serves.
std::optional<at::Tensor> attend_packed(const at::Tensor& q, const at::Tensor& k,
                                        const at::Tensor& v, const ForwardContext& context,
                                        const AttentionOptions& options) {
  if (!is_packed(q, context)) return std::nullopt;
  // the host's kernel knows no keys but the queries', and none knows a softcap
  if (context.virtual_tokens && (is_near(q) || options.softcap > 0)) return std::nullopt;
  const auto& starts = context.batch().starts;
  const auto [first_k, first_v] = first_keys(context);
  if (!first_k.defined()) return attend_by_kernel({q, k, v, starts, starts, options});
  const auto first = first_k.size(0);
  const auto key_starts = starts_behind(starts, first);
  struct Order {
    at::Tensor rows;
  };
  auto& [order] = kept_for<Order>({q, k, v, starts, key_starts, options});
  if (!order.defined()) order = rows_with_first(starts, first, q.device());
  const auto with_first = [&](const at::Tensor& virtual_rows, const at::Tensor& x) {
    return at::cat({virtual_rows.to(x.scalar_type()), x}).index_select(0, order);
  };
  return attend_by_kernel(
      {q, with_first(first_k, k), with_first(first_v, v), starts, key_starts, options});
}

/// One sample: its queries against its keys, of which there may be more, earlier ones.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const AttentionOptions& options) {
  const auto rows = q.size(0);
  const auto keys = k.size(0);
  const bool plain =
      options.causal && rows > 1 && rows == keys && (options.window == 0 || options.window >= keys);
  const bool soft = options.softcap > 0;
  const auto mask = plain && !soft ? std::nullopt : visible(rows, keys, options, q.device());
  if (soft) {
    const auto repeats = q.size(1) / k.size(1);
    return attend_softly(q.transpose(0, 1), k.repeat_interleave(repeats, 1).transpose(0, 1),
                         v.repeat_interleave(repeats, 1).transpose(0, 1), mask, options)
        .transpose(0, 1);
  }
  const auto heads_first = [](const at::Tensor& x) { return x.transpose(0, 1).unsqueeze(0); };
  return attend_at_once(heads_first(q), heads_first(k), heads_first(v), mask, plain, options)
      .squeeze(0)
      .transpose(0, 1);
}

}  // namespace

at::Tensor planned_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const std::optional<at::Tensor>& mask, bool causal,
                             const AttentionOptions& options) {
  // where the bytes of a head are no multiple of it, scores are made in full
  constexpr std::int64_t alignment = 16;
  const auto bytes = q.size(3) * static_cast<std::int64_t>(q.element_size());
  if (PlannedOnAccelerator::is_planned(q) && bytes % alignment != 0)
    return at::scaled_dot_product_attention(q, k, v, mask, 0.0, causal, options.scale,
                                            q.size(1) != k.size(1));
  const auto added = mask ? std::optional(mask->to(q.scalar_type())) : std::nullopt;
  return std::get<0>(
      at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, added, options.scale));
}

at::Tensor attend_at_once(const at::Tensor& q, const at::Tensor& given_k, const at::Tensor& given_v,
                          const std::optional<at::Tensor>& mask, bool causal,
                          const AttentionOptions& options) {
  // With a mask, GPUs have a kernel without scores in full only for as many heads of keys.
  const auto repeats = mask && is_on_accelerator(q) ? q.size(1) / given_k.size(1) : 1;
  const auto repeated = [&](const at::Tensor& x) {
    return repeats == 1 ? x : x.repeat_interleave(repeats, 1);
  };
  const at::Tensor k = repeated(given_k);
  const at::Tensor v = repeated(given_v);
  if (q.is_meta()) return planned_attention(q, k, v, mask, causal, options);
  return at::scaled_dot_product_attention(q, k, v, mask, 0.0, causal, options.scale,
                                          q.size(1) != k.size(1));
}

const AttentionKernel* attention_kernel(const PackedAttention& call) {
  for (const auto& kernel : kernels)
    if (kernel.serves(call)) return &kernel;
  return nullptr;
}

std::optional<at::Tensor> visible(std::int64_t rows, std::int64_t keys,
                                  const AttentionOptions& options, at::Device device) {
  if (!options.causal) return std::nullopt;
  const bool windowed = options.window > 0 && options.window < keys;
  if (rows == 1 && !windowed) return std::nullopt;
  at::Tensor mask =
      at::ones({rows, keys}, at::TensorOptions().dtype(at::kBool).device(device)).tril(keys - rows);
  if (windowed) mask = mask.triu(keys - rows - options.window + 1);
  return mask;
}

at::Tensor attend_softly(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const std::optional<at::Tensor>& mask, const AttentionOptions& options) {
  at::Tensor scores = at::matmul(q, k.transpose(-2, -1)) * options.scale;
  scores = options.softcap * (scores / options.softcap).tanh();
  if (mask)
    scores = scores.masked_fill(mask->logical_not(), -std::numeric_limits<double>::infinity());
  const at::Tensor shares =
      at::softmax(scores, -1, at::toOpMathType(q.scalar_type())).to(q.scalar_type());
  return at::matmul(shares, v);
}

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const ForwardContext& context, const AttentionOptions& options) {
  if (auto attended = attend_packed(q, k, v, context, options)) return *std::move(attended);
  const auto& starts = context.batch().starts;
  const auto block = context.block();
  const auto [first_k, first_v] = first_keys(context);
  const auto after = [](const at::Tensor& first, const at::Tensor& x) {
    return first.defined() ? at::cat({first.to(x.scalar_type()), x}) : x;
  };
  auto* const cache = context.cache;
  const auto samples = starts.size() - 1;
  const auto seen = [&](std::int64_t sample, const at::Tensor& keys,
                        const at::Tensor& values) -> KeysValues {
    const bool begins = !cache || cache->length(sample, block) == 0;
    const KeysValues all = begins ? KeysValues{after(first_k, keys), after(first_v, values)}
                                  : KeysValues{keys, values};
    return cache ? cache->append(block, sample, all.first, all.second) : all;
  };
  std::vector<std::int64_t> lengths;
  for (std::size_t sample = 0; sample < samples; ++sample)
    lengths.push_back(starts[sample + 1] - starts[sample]);
  // One split, not a slice per sample: its gradient is one concatenation.
  const auto queries = q.split_with_sizes(lengths);
  const auto keys = k.split_with_sizes(lengths);
  const auto values = v.split_with_sizes(lengths);
  std::vector<KeysValues> all;
  for (std::size_t sample = 0; sample < samples; ++sample)
    all.push_back(seen(static_cast<std::int64_t>(sample), keys[sample], values[sample]));
  const bool is_plain =
      options.softcap == 0 && is_float_on_cpu(q) && is_float_on_cpu(k) && is_float_on_cpu(v);
  if (cache && is_plain && !at::GradMode::is_enabled())
    return attend_to_seen(q.contiguous(), all, starts, options);
  std::vector<at::Tensor> attended;
  for (std::size_t sample = 0; sample < samples; ++sample)
    attended.push_back(attend(queries[sample], all[sample].first, all[sample].second, options));
  return samples == 1 ? attended.front() : at::cat(attended);
}

}  // namespace attune::nn
