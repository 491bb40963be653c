#include "prepare/truncate.hpp"

#include <ATen/ops/cat.h>

#include <algorithm>

namespace attune {
namespace {

/// The tokens from begin on, that many.
struct Stretch {
  std::int64_t begin;
  std::int64_t count;
};
using Cut = std::vector<Stretch>;  // what stays, in order

bool trains(const Sample& sample) {
  const auto mask = sample.find("loss_mask");
  return mask == sample.end() || mask->second.any().item<bool>();
}

Sample cut_sample(const Sample& sample, const Cut& cut) {
  const auto length = sample.at("tokens").size(0);
  Sample result = sample;
  for (auto& [name, column] : result) {
    if (column.dim() != 1 || column.size(0) != length) continue;
    std::vector<at::Tensor> parts;
    for (const auto& stretch : cut) parts.push_back(column.narrow(0, stretch.begin, stretch.count));
    column = at::cat(parts);
  }
  return result;
}

/// Cuts of what lies between head and tail, `room` tokens each.
std::vector<Cut> cuts_of(const TruncateOptions& options, std::int64_t head, std::int64_t inner,
                         std::int64_t room) {
  if (options.policy == "right") return {{{head, room}}};
  if (options.policy == "left") return {{{head + inner - room, room}}};
  if (options.policy == "middle")
    return {{{head, room - room / 2}, {head + inner - room / 2, room / 2}}};
  std::vector<Cut> windows;
  for (std::int64_t begin = 0;; begin += room - options.overlap) {
    const auto count = std::min(room, inner - begin);
    windows.push_back({{head + begin, count}});
    if (begin + count == inner) return windows;
  }
}

}  // namespace

std::vector<Sample> truncated(const TruncateOptions& options, Sample sample,
                              const std::vector<std::int32_t>& frame) {
  const auto tokens = sample.find("tokens");
  const auto limit = options.max_length;
  if (limit == 0 || tokens == sample.end() || tokens->second.dim() != 1 ||
      tokens->second.size(0) <= limit)
    return {std::move(sample)};
  if (options.policy == "drop") throw Rejected(fmt::format("longer than {} tokens", limit));
  const auto length = tokens->second.size(0);
  const auto token = [&](std::int64_t i) { return tokens->second[i].item<std::int64_t>(); };
  const std::int64_t head = !frame.empty() && token(0) == frame.front();
  const std::int64_t tail = !frame.empty() && token(length - 1) == frame.back();
  const auto room = limit - head - tail;
  if (room <= options.overlap)
    throw Rejected(fmt::format("{} tokens leave no room between the special ones", limit));
  std::vector<Sample> samples;
  for (auto cut : cuts_of(options, head, length - head - tail, room)) {
    if (head) cut.insert(cut.begin(), {0, 1});
    if (tail) cut.push_back({length - 1, 1});
    if (auto part = cut_sample(sample, cut); trains(part)) samples.push_back(std::move(part));
  }
  if (samples.empty()) throw Rejected(fmt::format("no training target within {} tokens", limit));
  return samples;
}

}  // namespace attune
