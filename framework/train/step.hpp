// Forward and backward passes of one optimizer step, over its micro-batches and all ranks.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/loader.hpp"
#include "parallel/gradient_sum.hpp"
#include "train/interruption.hpp"
#include "train/session.hpp"

namespace attune::train {

/// Sums over the data-parallel group, the same on every rank of the run; bad_rows are this rank's.
struct StepSums {
  double loss = 0;  // over the targets
  std::int64_t targets = 0;
  std::int64_t tokens = 0;
  std::int64_t samples_without_target = 0;
  std::int64_t row_without_target = -1;   // one of them
  std::map<std::string, double> scalars;  // means of what strategies reported, by name
  bool interruption_wanted = false;       // on some rank
  bool all_written = true;                // no rank still writes its part of a checkpoint
  std::vector<std::int64_t> bad_rows;     // of micro-batches whose loss is not finite
};

class Step {
 public:
  /// hidden: what keep_hidden_states kept; may be null. Collective.
  Step(Session& session, const std::vector<NamedTensor>& parameters, std::int64_t micro_batch,
       std::shared_ptr<const HiddenStates> hidden, Interruption& interruption);

  /// The step (from 0): every .grad holds the gradient of the summed loss on every rank.
  /// is_writing: this rank still writes a part of a checkpoint. Absent when the run was interrupted
  /// and the step left; .grad then holds nothing of use. Collective. Error: memory ran out.
  std::optional<StepSums> forward_backward(std::int64_t step, bool is_writing);

 private:
  struct Part;
  std::shared_ptr<BatchSource> batches_of(Session& session,
                                          std::shared_ptr<const HiddenStates> hidden) const;
  Part forward(Batch batch, std::int64_t step);
  void backward(const at::Tensor& loss, std::int64_t step);

  Session& s_;
  Interruption& interruption_;
  std::int64_t micro_batch_;
  std::shared_ptr<BatchSource> batches_;
  parallel::GradientSum gradients_;
};

}  // namespace attune::train
