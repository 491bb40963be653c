#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <attune/model.hpp>
#include <torch/torch.h>

namespace attune {
namespace {

void check_length(const Batch& batch, std::int64_t context) {
  std::int64_t longest = 0;
  for (std::size_t sample = 0; sample + 1 < batch.starts.size(); ++sample) longest = std::max(longest, batch.starts[sample + 1] - batch.starts[sample]);
  if (batch.cache) longest += batch.cache->length();
  if (longest > context) {
    fail("a sample of {} tokens is longer than the model's context of {}: set max_length to at most {} when preparing the data", longest, context, context);
  }
}

}  // namespace

std::pair<at::Tensor, at::Tensor> KeyValueCache::append(std::int64_t block, const at::Tensor& keys, const at::Tensor& values) {
  auto& [all_keys, all_values] = entries_.at(block);
  all_keys = all_keys.defined() ? at::cat({all_keys, keys}) : keys;
  all_values = all_values.defined() ? at::cat({all_values, values}) : values;
  return {all_keys, all_values};
}

std::int64_t KeyValueCache::length() const {
  return entries_.empty() || !entries_.front().first.defined() ? 0 : entries_.front().first.size(0);
}

at::Tensor Model::features(const Batch& batch) {
  check_length(batch, spec().context);
  at::Tensor h = embed(batch);
  for (std::int64_t index = 0; index < spec().depth; ++index) h = block(index, h, batch);
  return finish(h, batch);
}

at::Tensor Model::logits(const Batch& batch) { return projection().forward(features(batch)); }

}  // namespace attune
