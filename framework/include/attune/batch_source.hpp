// Where the batches of a run's steps come from: the data file (data/loader.hpp), or a strategy that
// makes them, as from samples of the model itself.
#pragma once
#include <attune/api.hpp>
#include <attune/batch.hpp>

#include <cstdint>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

/// Samples of one forward pass.
struct MicroBatch {
  std::vector<std::int64_t> rows;     // of the training split
  std::vector<std::int64_t> lengths;  // of each, in tokens
  std::int64_t tokens() const;
};

/// The micro-batches of one step, the same list on every rank, and which of them are this rank's.
struct StepPlan {
  std::int64_t step = 0;
  std::vector<std::int64_t> rows;         // the global batch
  std::vector<MicroBatch> micro_batches;  // of all ranks of the data-parallel group
  // this rank's: micro_batches[first] .. [end - 1]; the ranks' shares follow each other
  std::int64_t first = 0;
  std::int64_t end = 0;
};

/// What it gives depends on the step, the run's seed and the model alone: a resumed run asks for
/// the same again.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  /// The plan holds until the next call. Any step may follow any other. Collective where the source
  /// needs it.
  virtual const StepPlan& begin_step(std::int64_t step) = 0;
  /// This rank's next batch of the step, with Batch::ids; called plan.end - plan.first times.
  virtual Batch next() = 0;
};

}  // namespace attune
ATTUNE_API_END
