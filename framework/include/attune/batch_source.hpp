// Sources of training batches: the data file (data/loader.hpp), or a strategy that generates them,
// for example by sampling from the model itself.
#pragma once
#include <attune/api.hpp>
#include <attune/batch.hpp>

#include <cstdint>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

/// The samples of one forward pass.
struct MicroBatch {
  std::vector<std::int64_t> rows;     // row numbers in the training split
  std::vector<std::int64_t> lengths;  // tokens of each sample
  std::int64_t tokens() const;
};

/// The micro-batches of one step, identical on every rank, and the range assigned to this rank.
struct StepPlan {
  std::int64_t step = 0;
  std::vector<std::int64_t> rows;         // the global batch
  std::vector<MicroBatch> micro_batches;  // of all ranks of the data-parallel group
  // this rank's range: micro_batches[first] .. [end - 1]; ranges of consecutive ranks are adjacent
  std::int64_t first = 0;
  std::int64_t end = 0;
};

/// Produces the batches of each step. The result must depend only on the step, the run's seed and
/// the model, so that a resumed run trains on the same batches.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  /// Returns the plan of a step, valid until the next call. Steps may be requested in any order.
  /// Collective if the source needs communication.
  virtual const StepPlan& begin_step(std::int64_t step) = 0;
  /// Returns this rank's next batch of the step, with Batch::ids. Called plan.end - plan.first
  /// times.
  virtual Batch next() = 0;
};

}  // namespace attune
ATTUNE_API_END
