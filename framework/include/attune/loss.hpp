// A loss is a sum and a count. The framework divides by the count over all ranks and all micro-batches of the step, so that any split
// of the same global batch gives the same gradient.
#pragma once
#include <attune/batch.hpp>

#include <vector>

namespace attune {
class Model;
namespace nn {
class Linear;
}

struct Loss {
  at::Tensor sum;              // scalar, differentiable
  std::int64_t count = 0;      // targets it sums over
  std::int64_t correct = 0;    // of these, how many the output got right; 0 where the target is a value
  at::Tensor outputs;          // for targets of float32 alone, which metrics compare: the same shape, detached
  bool is_cross_entropy = true;  // of next tokens: the exponential of its mean is the perplexity
};

/// Cross-entropy of softmax(projection(features)) against targets, in chunks of rows: all logits of a batch are never held at once.
/// features [N, width]; targets int64 [N], rows with ignored_target are not even projected.
Loss cross_entropy(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets);

/// Any of several labels: cross-entropy of sigmoid(projection(features)) against each label's own target. features [N, width]; targets
/// float32 [N, outputs], 0 or 1. Counts N x outputs; correct where output and target are on the same side of a half.
Loss binary_cross_entropy(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets);

/// A value: (projection(features) - target)^2. features [N, width], one output; targets float32 [N].
Loss squared_error(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets);

/// The parts that other losses are made of, one per trained row: those whose target is not ignored_target. float32 at least, differentiable;
/// the logits are computed in chunks, and again in the backward pass.
struct RowLosses {
  at::Tensor rows;      // int64 [n]: which of the N rows they are
  at::Tensor targets;   // int64 [n]
  at::Tensor nll;       // [n]: -log p(target)
  at::Tensor uniform;   // [n]: the mean of -log p over all outputs
  std::int64_t correct = 0;
};
/// features [N, width]; targets int64 [N].
RowLosses row_losses(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets);

/// How many targets each sample of a batch has; empty for data without targets. A sample that has none adds nothing to a loss.
std::vector<std::int64_t> targets_by_sample(const Batch& batch);
/// The rows (Batch::ids) of samples without a target: of pairs, those of which either answer has none.
std::vector<std::int64_t> rows_without_target(const Batch& batch);

/// log p(targets | what comes before) of every sample of a decoder's batch: the sum over its trained rows, [B], and their number, int64 [B].
struct SampleLogProbabilities {
  at::Tensor sums, counts;
};
SampleLogProbabilities sample_log_probabilities(Model& model, const Batch& batch);

/// The one of the first three that the targets' type asks for (Batch::targets).
Loss supervised_loss(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets);

}  // namespace attune
