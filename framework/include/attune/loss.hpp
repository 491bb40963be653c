// A loss is a sum and a count. The framework divides by the count over all ranks and all micro-batches of the step, so that any split
// of the same global batch gives the same gradient.
#pragma once
#include <attune/batch.hpp>

namespace attune {
namespace nn {
class Linear;
}

struct Loss {
  at::Tensor sum;              // scalar, differentiable
  std::int64_t count = 0;      // targets it sums over
  std::int64_t correct = 0;    // of these, how many the largest output got right
};

/// Cross-entropy of softmax(projection(features)) against targets, in chunks of rows: all logits of a batch are never held at once.
/// features [N, width]; targets int64 [N], rows with ignored_target are not even projected.
Loss cross_entropy(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets);

}  // namespace attune
