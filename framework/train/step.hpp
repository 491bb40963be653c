// Forward and backward passes of one optimizer step, over its micro-batches and all ranks.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/loader.hpp"
#include "device/readings.hpp"
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
  /// parameters: those of the updater. hidden: result of keep_hidden_states; may be null.
  /// Collective.
  Step(Session& session, const std::vector<NamedTensor>& parameters,
       const parallel::ShardPlan& plan, const parallel::Sharing& sharing, std::int64_t micro_batch,
       std::shared_ptr<const HiddenStates> hidden, Interruption& interruption);

  /// Runs one step (counted from 0), without a wait for the device. Afterwards gradients() are
  /// those of the summed loss, and `readings` holds what sums() needs. false if the run was
  /// interrupted and the step abandoned. Error: out of memory. Collective.
  bool forward_backward(std::int64_t step, device::Readings& readings);

  /// The shards that this rank updates, once; see GradientSum::take_shards().
  std::vector<parallel::Shard> gradients() { return gradients_.take_shards(); }

  /// What forward_backward() computed, once the readings are read. is_writing: this rank is still
  /// writing its part of a checkpoint. Collective.
  StepSums sums(const device::Readings& readings, bool is_writing) const;

 private:
  /// One micro-batch.
  struct Part {
    std::int64_t index = 0;          // in the step
    std::vector<std::int64_t> rows;  // of the data
    std::vector<std::int64_t> without_target;
    std::int64_t targets = 0;
    std::int64_t tokens = 0;
    std::size_t loss = 0;  // place in the readings
    struct Reported {
      std::size_t sum;  // place in the readings
      double count;
    };
    std::map<std::string, Reported> scalars;
  };
  std::shared_ptr<BatchSource> batches_of(Session& session,
                                          std::shared_ptr<const HiddenStates> hidden) const;
  at::Tensor forward(std::int64_t micro_batch, const StepPlan& plan, std::int64_t step,
                     device::Readings& readings);
  bool passes_alone(std::int64_t step, const StepPlan& plan, device::Readings& readings);
  bool passes_together(std::int64_t step, const StepPlan& plan, std::int64_t passes,
                       device::Readings& readings);
  void backward(const at::Tensor& loss, std::int64_t step);

  Session& s_;
  Interruption& interruption_;
  std::int64_t micro_batch_;
  std::shared_ptr<BatchSource> batches_;
  std::vector<Part> parts_;         // of this rank's micro-batches in the step
  std::int64_t micro_batches_ = 0;  // of all ranks
  parallel::GradientSum gradients_;
};

}  // namespace attune::train
