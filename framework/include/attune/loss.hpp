// A loss is a sum and a count. The framework divides by the count over all ranks and micro-batches
// of the step, so the gradient does not depend on how the global batch is split.
#pragma once
#include <attune/api.hpp>
#include <attune/batch.hpp>
#include <attune/forward.hpp>

#include <map>
#include <string>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {
class Model;
namespace nn {
class Linear;
}

/// A value that a strategy reports beside its loss. Its mean is sum / count, accumulated over the
/// micro-batches of a step and all ranks.
struct Scalar {
  at::Tensor sum;  // float64 scalar, detached, on the run's device
  double count = 0;
};

/// The loss of a batch. Its tensors stay on the run's device: to read one, with `item` for example,
/// makes the host wait for the device. The run reads them all together, once in a step.
struct Loss {
  at::Tensor sum;          // scalar, differentiable
  std::int64_t count = 0;  // number of targets in the sum
  // scalar: number of correctly predicted targets; undefined for regression
  at::Tensor correct = {};
  // Predictions that metrics compare with the targets: same shape, detached. For float32 targets:
  // always set, float32 values or probabilities. For int64 targets: set only if
  // ForwardContext::wants_outputs, the int64 argmax class (the lowest in a tie), or ignored_target
  // where the target is ignored_target.
  at::Tensor outputs = {};
  // by name, such as "rewards/margins"; letters, digits and _ / . - are allowed
  std::map<std::string, Scalar> scalars = {};

  /// Adds the sum and the number of elements of `values` (any shape) to the scalar `name`.
  void report(const std::string& name, const at::Tensor& values);
};

/// Cross-entropy of softmax(projection(features)) against the targets. features: [N, width].
/// targets: int64 [N]; rows with ignored_target are not projected. Rows are processed in chunks, so
/// the logits of the whole batch are never in memory at once. context: that of the pass that
/// computed the features.
Loss cross_entropy(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets,
                   const ForwardContext& context = {});

/// Multi-label loss: binary cross-entropy of sigmoid(projection(features)) against each label's
/// target. features: [N, width]. targets: float32 [N, outputs], 0 or 1. The count is N * outputs.
/// An output is correct if it is on the same side of 0.5 as its target.
Loss binary_cross_entropy(const at::Tensor& features, nn::Linear& projection,
                          const at::Tensor& targets, const ForwardContext& context = {});

/// Regression loss: (projection(features) - target)^2. features: [N, width]; the projection has one
/// output. targets: float32 [N].
Loss squared_error(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets,
                   const ForwardContext& context = {});

/// Per-row terms from which other losses are built, for the n rows whose target is not
/// ignored_target. At least float32, differentiable. The logits are computed in chunks and
/// recomputed in the backward pass.
struct RowLosses {
  at::Tensor rows;     // int64 [n]: indices into the N rows
  at::Tensor targets;  // int64 [n]
  at::Tensor nll;      // [n]: -log p(target)
  at::Tensor uniform;  // [n]: mean of -log p over all outputs
  at::Tensor correct;  // scalar: number of correctly predicted targets
};
/// features [N, width]; targets int64 [N].
RowLosses row_losses(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets,
                     const ForwardContext& context = {});

/// The rows of class or token targets that are trained, int64 on the host: those that are not
/// ignored_target.
at::Tensor trained_rows(const Batch& batch);

/// Number of targets of each sample; empty for data without targets. A sample without a target does
/// not contribute to a loss.
std::vector<std::int64_t> targets_by_sample(const Batch& batch);
/// Rows (Batch::ids) of samples without a target. A preference pair counts if either answer has no
/// target.
std::vector<std::int64_t> rows_without_target(const Batch& batch);

/// Log-probability of the targets of each sample in a decoder's batch, given the preceding tokens:
/// the sum over its target rows [B], and the number of these rows, int64 [B].
struct SampleLogProbabilities {
  at::Tensor sums;
  at::Tensor counts;
};
SampleLogProbabilities sample_log_probabilities(Model& model, const ForwardContext& context);

/// Selects cross_entropy, binary_cross_entropy or squared_error by the targets' dtype
/// (Batch::targets).
Loss supervised_loss(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets,
                     const ForwardContext& context = {});
/// The same for the model's outputs on the context's batch.
Loss supervised_loss(Model& model, const ForwardContext& context);

}  // namespace attune
ATTUNE_API_END
