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

/// Sums over the data-parallel group, the same on every rank of the run. Only bad_rows is per rank.
struct StepSums {
  double loss = 0;  // sum over the targets
  std::int64_t targets = 0;
  std::int64_t tokens = 0;
  std::int64_t samples_without_target = 0;
  std::int64_t row_without_target = -1;   // example row
  std::map<std::string, double> scalars;  // means of the strategies' reported values, by name
  bool interruption_wanted = false;       // on any rank
  bool all_written = true;                // no rank is still writing its part of a checkpoint
  std::vector<std::int64_t> bad_rows;     // rows of micro-batches with a non-finite loss
};

class Step {
 public:
  /// hidden: result of keep_hidden_states; may be null. Collective.
  Step(Session& session, const std::vector<NamedTensor>& parameters, std::int64_t micro_batch,
       std::shared_ptr<const HiddenStates> hidden, Interruption& interruption);

  /// Runs one step (counted from 0). Afterwards every .grad holds the gradient of the summed loss
  /// on every rank. is_writing: this rank is still writing its part of a checkpoint. Absent if the
  /// run was interrupted and the step abandoned; .grad is then meaningless. Error: out of memory.
  /// Collective.
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
