// A loss is a sum and a count. The framework divides by the count over all ranks and all
// micro-batches of the step, so that any split of the same global batch gives the same gradient.
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

/// A number that a strategy reports beside its loss: sum / count is its mean, over the
/// micro-batches of a step and all ranks.
struct Scalar {
  double sum = 0;
  double count = 0;
};

struct Loss {
  at::Tensor sum;          // scalar, differentiable
  std::int64_t count = 0;  // targets it sums over
  // of these, how many the output got right; 0 where the target is a value
  std::int64_t correct = 0;
  // what metrics compare with the targets, of their shape and detached. Targets of float32: always,
  // values or probabilities, float32. Targets of int64: when ForwardContext::wants_outputs asks,
  // the class of the largest output (the first of several), int64, and ignored_target where the
  // target is that.
  at::Tensor outputs = {};
  // by name, "rewards/margins": letters, digits and _ / . -
  std::map<std::string, Scalar> scalars = {};

  /// Adds values, of any shape, to the scalar of that name: their sum and their number.
  void report(const std::string& name, const at::Tensor& values);
};

/// Cross-entropy of softmax(projection(features)) against targets, in chunks of rows: all logits of
/// a batch are never held at once. features [N, width]; targets int64 [N], rows with ignored_target
/// are not even projected. `context`: that of the features' pass.
Loss cross_entropy(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets,
                   const ForwardContext& context = {});

/// Any of several labels: cross-entropy of sigmoid(projection(features)) against each label's own
/// target. features [N, width]; targets float32 [N, outputs], 0 or 1. Counts N x outputs; correct
/// where output and target are on the same side of a half.
Loss binary_cross_entropy(const at::Tensor& features, nn::Linear& projection,
                          const at::Tensor& targets, const ForwardContext& context = {});

/// A value: (projection(features) - target)^2. features [N, width], one output; targets float32
/// [N].
Loss squared_error(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets,
                   const ForwardContext& context = {});

/// The parts that other losses are made of, one per trained row: those whose target is not
/// ignored_target. float32 at least, differentiable; the logits are computed in chunks, and again
/// in the backward pass.
struct RowLosses {
  at::Tensor rows;     // int64 [n]: which of the N rows they are
  at::Tensor targets;  // int64 [n]
  at::Tensor nll;      // [n]: -log p(target)
  at::Tensor uniform;  // [n]: the mean of -log p over all outputs
  std::int64_t correct = 0;
};
/// features [N, width]; targets int64 [N].
RowLosses row_losses(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets,
                     const ForwardContext& context = {});

/// How many targets each sample of a batch has; empty for data without targets. A sample that has
/// none adds nothing to a loss.
std::vector<std::int64_t> targets_by_sample(const Batch& batch);
/// The rows (Batch::ids) of samples without a target: of pairs, those of which either answer has
/// none.
std::vector<std::int64_t> rows_without_target(const Batch& batch);

/// log p(targets | what comes before) of every sample of a decoder's batch: the sum over its
/// trained rows, [B], and their number, int64 [B].
struct SampleLogProbabilities {
  at::Tensor sums;
  at::Tensor counts;
};
SampleLogProbabilities sample_log_probabilities(Model& model, const ForwardContext& context);

/// The one of the first three that the targets' type asks for (Batch::targets).
Loss supervised_loss(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets,
                     const ForwardContext& context = {});
/// Of the model's outputs for the context's batch.
Loss supervised_loss(Model& model, const ForwardContext& context);

}  // namespace attune
ATTUNE_API_END
