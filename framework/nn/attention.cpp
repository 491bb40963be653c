// Attention within samples that lie end to end: a kernel for the whole batch where there is one,
// otherwise sample by sample.
#include <ATen/OpMathType.h>
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

/// Whether a sample's queries see keys of the same rows, and no others.
bool is_packed(const PackedAttention& call, const ForwardContext& context) {
  if (context.cache || context.virtual_tokens || context.batch().length() != call.q.size(0))
    return false;
  for (std::size_t i = 0; i + 1 < call.starts.size(); ++i)
    if (call.starts[i] == call.starts[i + 1]) return false;
  return call.samples() > 0;
}

/// The kernel that LibTorch takes on the host, which is given what is added to the scores. Of the
/// meta device's own choice all scores would be kept.
at::Tensor planned_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const std::optional<at::Tensor>& mask, bool causal,
                             const AttentionOptions& options) {
  const auto added = mask ? std::optional(mask->to(q.scalar_type())) : std::nullopt;
  const auto [y, log_sums] =
      at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, added, options.scale);
  return y.squeeze(0).transpose(0, 1);
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
  if (q.is_meta())
    return planned_attention(heads_first(q), heads_first(k), heads_first(v), mask, plain, options);
  const at::Tensor y =
      at::scaled_dot_product_attention(heads_first(q), heads_first(k), heads_first(v), mask, 0.0,
                                       plain, options.scale, q.size(1) != k.size(1));
  return y.squeeze(0).transpose(0, 1);
}

}  // namespace

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
  const auto& starts = context.batch().starts;
  const PackedAttention call{q, k, v, starts, options};
  if (is_packed(call, context))
    if (const auto* const kernel = attention_kernel(call)) return kernel->attend(call);
  const auto block = context.block();
  // of virtual tokens
  at::Tensor first_k;
  at::Tensor first_v;
  if (context.virtual_tokens)
    std::tie(first_k, first_v) = context.virtual_tokens->keys_values(block);
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
