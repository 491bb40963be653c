// Attention on devices where no kernel knows packed samples: those of similar lengths are padded to
// the longest of them.
#include <attune/device.hpp>
#include <torch/torch.h>

#include <bit>
#include <map>

#include "nn/attention_kernels.hpp"

namespace attune::nn {
namespace {

/// Samples that are padded to one length.
struct Part {
  std::vector<std::size_t> samples;  // of the batch
  std::int64_t longest = 0;
  at::Tensor tokens;   // int64 [T]: their rows of the batch; undefined for all of them
  at::Tensor places;   // int64 [T]: of these among the padded rows
  at::Tensor lengths;  // int64 [samples]
  std::map<std::pair<bool, std::int64_t>, std::optional<at::Tensor>> masks;  // by causal, window

  std::int64_t count() const { return std::ssize(samples); }
  std::int64_t scores() const { return count() * longest * longest; }
};

struct Parts {
  std::vector<Part> parts;
  // int64 [T]: of each row of the batch, its place among those of the parts, if there are several
  at::Tensor order;
};

std::int64_t length(const PackedAttention& call, std::size_t sample) {
  return call.starts[sample + 1] - call.starts[sample];
}

/// Samples by the power of two that their length does not exceed.
std::vector<Part> by_similar_lengths(const PackedAttention& call) {
  std::map<int, Part> parts;
  for (std::size_t i = 0; i + 1 < call.starts.size(); ++i) {
    const auto rows = length(call, i);
    auto& part = parts[std::bit_width(static_cast<std::uint64_t>(rows - 1))];
    part.samples.push_back(i);
    part.longest = std::max(part.longest, rows);
  }
  std::vector<Part> list;
  for (auto& [bits, part] : parts) list.push_back(std::move(part));
  return list;
}

Part all_samples(const PackedAttention& call) {
  Part part;
  for (std::size_t i = 0; i + 1 < call.starts.size(); ++i) part.samples.push_back(i);
  part.longest = call.longest();
  return part;
}

/// One part while its scores are few, or hardly more than those that are asked for: a part costs
/// calls, and one long sample would make all scores as many as its own.
std::vector<Part> divide(const PackedAttention& call) {
  constexpr std::int64_t few = 1 << 20;  // of one head
  std::int64_t needed = 0;
  for (std::size_t i = 0; i + 1 < call.starts.size(); ++i)
    needed += length(call, i) * length(call, i);
  auto all = all_samples(call);
  if (all.scores() > std::max(few, 2 * needed)) return by_similar_lengths(call);
  std::vector<Part> one;
  one.push_back(std::move(all));
  return one;
}

/// Fills in the tensors of a part; its rows go behind `rows`.
void place_rows(Part& part, const PackedAttention& call, std::vector<std::int64_t>& rows,
                bool is_one_of_several) {
  std::vector<std::int64_t> places;
  std::vector<std::int64_t> lengths;
  const auto first = std::ssize(rows);
  for (const auto sample : part.samples) {
    const auto begin = std::ssize(lengths) * part.longest;
    lengths.push_back(length(call, sample));
    for (std::int64_t row = 0; row < lengths.back(); ++row) {
      rows.push_back(call.starts[sample] + row);
      places.push_back(begin + row);
    }
  }
  const auto given = [&](const std::vector<std::int64_t>& numbers) {
    return on_device(at::tensor(numbers, at::kLong), call.q.device());
  };
  if (is_one_of_several) part.tokens = given({rows.begin() + first, rows.end()});
  part.places = given(places);
  part.lengths = given(lengths);
}

Parts& parts_of(const PackedAttention& call) {
  auto& kept = kept_for<Parts>(call);
  if (!kept.parts.empty()) return kept;
  kept.parts = divide(call);
  std::vector<std::int64_t> rows;
  const bool are_several = kept.parts.size() > 1;
  for (auto& part : kept.parts) place_rows(part, call, rows, are_several);
  if (!are_several) return kept;
  std::vector<std::int64_t> order(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i)
    order[static_cast<std::size_t>(rows[i])] = static_cast<std::int64_t>(i);
  kept.order = on_device(at::tensor(order, at::kLong), call.q.device());
  return kept;
}

/// [T, heads, width] as [samples, heads, longest, width], with zeros behind shorter samples.
at::Tensor pad(const at::Tensor& x, const Part& part) {
  return x.new_zeros({part.count() * part.longest, x.size(1), x.size(2)})
      .index_copy(0, part.places, x)
      .view({part.count(), part.longest, x.size(1), x.size(2)})
      .transpose(1, 2);
}

/// Rows behind a sample's end see something as well: without a key, a row would be NaN.
std::optional<at::Tensor> make_mask(const Part& part, const AttentionOptions& options) {
  if (options.causal) return visible(part.longest, part.longest, options, part.lengths.device());
  if (part.count() * part.longest == part.places.size(0)) return std::nullopt;
  const at::Tensor keys = at::arange(part.longest, part.lengths.options());
  return (keys < part.lengths.unsqueeze(1)).view({part.count(), 1, 1, part.longest});
}

const std::optional<at::Tensor>& mask_of(Part& part, const AttentionOptions& options) {
  const std::pair kind{options.causal, options.window};
  const auto found = part.masks.find(kind);
  return found != part.masks.end()
             ? found->second
             : part.masks.emplace(kind, make_mask(part, options)).first->second;
}

/// q, k, v: the rows of the part.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, Part& part,
                  const AttentionOptions& options) {
  const auto repeats = q.size(1) / k.size(1);
  const at::Tensor queries = pad(q, part);
  const at::Tensor keys = pad(k, part);
  const at::Tensor values = pad(v, part);
  const bool is_soft = options.softcap > 0;
  const bool is_windowed = options.window > 0 && options.window < part.longest;
  const bool is_plainly_causal = options.causal && !is_windowed && part.longest > 1;
  const auto mask = is_plainly_causal && !is_soft ? std::nullopt : mask_of(part, options);
  const at::Tensor y =
      is_soft ? attend_softly(queries, keys.repeat_interleave(repeats, 1),
                              values.repeat_interleave(repeats, 1), mask, options)
              : attend_at_once(queries, keys, values, mask, is_plainly_causal, options);
  return y.transpose(1, 2).flatten(0, 1).index_select(0, part.places);
}

}  // namespace

bool padding_serves(const PackedAttention& call) {
  return is_on_accelerator(call.q) && call.samples() > 1 && !call.has_more_keys();
}

at::Tensor attend_padded(const PackedAttention& call) {
  auto& [parts, order] = parts_of(call);
  if (parts.size() == 1) return attend(call.q, call.k, call.v, parts.front(), call.options);
  std::vector<at::Tensor> attended;
  for (auto& part : parts) {
    const auto rows = [&](const at::Tensor& x) { return x.index_select(0, part.tokens); };
    attended.push_back(attend(rows(call.q), rows(call.k), rows(call.v), part, call.options));
  }
  return at::cat(attended).index_select(0, order);
}

}  // namespace attune::nn
