// Batches of each step for every rank: the plan is computed identically on all ranks; batches are
// read and collated in advance.
//
//   Loader loader(train, dataset, options, mesh.data.rank(), mesh.data.size());
//   for (; step < steps; ++step) {
//     const StepPlan& plan = loader.begin_step(step);       // the first call may pass any step
//     for (auto i = plan.first; i < plan.end; ++i) {        // index into the list of all ranks
//       const Batch batch = loader.next();
//       ...
#pragma once
#include <attune/batch_source.hpp>
#include <attune/dataset.hpp>

#include <memory>
#include <span>
#include <vector>

#include "data/hidden.hpp"
#include "data/prefetch.hpp"
#include "data/sampler.hpp"
#include "data/store.hpp"

namespace attune {

struct PlanOptions {
  std::int64_t micro_batch = 4;  // samples per micro-batch
  // if above 0: token budget per micro-batch, instead of micro_batch; a longer sample gets its own
  std::int64_t micro_tokens = 0;
  bool group_lengths = false;  // sort the samples of a step by length, shortest first
};

/// Divides a step into micro-batches, independently of the number of ranks. lengths[i] belongs to
/// rows[i].
std::vector<MicroBatch> plan_step(std::span<const std::int64_t> rows,
                                  std::span<const std::int64_t> lengths,
                                  const PlanOptions& options);

/// Assigns micro-batches to ranks. Returns bounds [ranks + 1]: rank r computes the micro-batches
/// from index bounds[r] to bounds[r + 1] - 1, at least one. The list is reordered to balance tokens
/// across ranks; if it is shorter than the number of ranks, the largest micro-batches are halved.
/// `keep_order`, for reproducible runs, prevents both; too few micro-batches are then an Error.
/// Fault if there are fewer samples than ranks.
std::vector<std::int64_t> share_out(std::vector<MicroBatch>& micro_batches, int ranks,
                                    bool keep_order);

/// Tokens of every sample in a split: the total length of its ragged token columns, or 1 if it has
/// none.
std::vector<std::int64_t> sample_lengths(const Split& split);

struct LoaderOptions {
  std::int64_t global_batch = 16;
  std::uint64_t seed = 0;
  std::int64_t shuffle_block = 1;  // shuffle granularity, see Sampler
  PlanOptions plan;
  // micro-batches are never split, and are summed in the order of the plan
  bool reproducible = false;
  std::size_t ahead = 4;  // number of prefetched batches; 0: next() reads synchronously
  std::shared_ptr<const HiddenStates> hidden = nullptr;  // cached states to attach to the batches
};

/// Loads one rank's batches of a training split, augmented (Dataset::augment) with seeds that
/// depend only on (seed, step, row). Split and dataset must outlive the loader. Its prefetch thread
/// uses both, so HDF5 reads must be thread-safe.
class Loader final : public BatchSource {
 public:
  /// rank, ranks: in the data-parallel group. Errors: those of Sampler.
  Loader(const Split& split, const Dataset& dataset, const LoaderOptions& options, int rank = 0,
         int ranks = 1);
  ~Loader() override;

  /// Returns the plan of a step, valid until the next call. Consecutive steps are prefetched; any
  /// other step restarts the prefetch. Errors: those of reading, augmenting and collating the
  /// step's first batch, and of share_out().
  const StepPlan& begin_step(std::int64_t step) override;
  /// This rank's next batch of the step. Called plan.end - plan.first times. Errors: those of
  /// reading, augmenting and collating this batch.
  Batch next() override;

  /// Total seconds spent in begin_step() and next(), i.e. waiting for data.
  double waited_seconds() const { return waited_seconds_; }

 private:
  struct Item {
    std::shared_ptr<const StepPlan> plan;
    Batch batch;
  };
  class Reader;
  Item take();

  const Split& split_;
  const Dataset& dataset_;
  LoaderOptions options_;
  int rank_;
  int ranks_;
  std::shared_ptr<const std::vector<std::int64_t>> lengths_;
  std::unique_ptr<Prefetch<Item>> items_;
  Item head_;               // first batch of the step, until next() returns it
  std::int64_t taken_ = 0;  // batches taken in this step
  double waited_seconds_ = 0;
};

}  // namespace attune
