#include <ATen/ops/full.h>
#include <attune/dataset.hpp>
#include <attune/error.hpp>

namespace attune {

at::Tensor next_token_targets(const at::Tensor& tokens, const at::Tensor& mask) {
  ATTUNE_ASSERT(tokens.dim() == 1 && (!mask.defined() || mask.sizes() == tokens.sizes()),
                "{} dimensions", tokens.dim());
  const auto rows = tokens.size(0);
  at::Tensor targets = at::full({rows}, ignored_target, at::kLong);
  if (rows < 2) return targets;
  at::Tensor predicting = targets.narrow(0, 0, rows - 1);
  predicting.copy_(tokens.narrow(0, 1, rows - 1));
  if (mask.defined()) predicting.masked_fill_(mask.narrow(0, 1, rows - 1).eq(0), ignored_target);
  return targets;
}

std::vector<Sample> Dataset::encode_all(const Record& record, const EncodeContext& context) const {
  return {encode(record, context)};
}

std::vector<std::string> Dataset::labels(const Record& record) const {
  const bool is_there = record.fields.contains("label") || record.lists.contains("label");
  return is_there ? std::vector{record.field("label")} : std::vector<std::string>{};
}

Sample Dataset::augment(Sample sample, std::uint64_t) const { return sample; }

std::vector<Metric> Dataset::metrics(const MetricContext& context) const {
  return metrics::of_targets(context);
}

}  // namespace attune
