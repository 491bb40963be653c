// From the rows of a step to the batches that each rank computes: planned alike on all ranks, read
// and collated ahead of the loop.
//
//   Loader loader(train, dataset, options, mesh.data.rank(), mesh.data.size());
//   for (; step < steps; ++step) {
//     const StepPlan& plan = loader.begin_step(step);       // any step: the series starts there
//     for (auto i = plan.first; i < plan.end; ++i) {        // position in the list of all ranks
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
  std::int64_t micro_batch = 4;  // samples in each
  // above 0: instead, as many samples as have so many tokens together; a longer sample stands alone
  std::int64_t micro_tokens = 0;
  bool group_lengths = false;  // the shortest samples of the step first
};

/// The micro-batches of a step: a function of the rows, whatever the number of ranks. lengths[i]
/// belongs to rows[i].
std::vector<MicroBatch> plan_step(std::span<const std::int64_t> rows,
                                  std::span<const std::int64_t> lengths,
                                  const PlanOptions& options);

/// Bounds [ranks + 1]: rank r computes micro_batches[bounds[r]] .. [bounds[r + 1] - 1]: at least
/// one, and about as many tokens as the others. The list is reordered for that, and where it has
/// fewer micro-batches than ranks, the largest are cut in two until there are enough. With
/// `keep_order`, which reproducible runs ask for, it stays as it is, and too few are an Error. A
/// Fault when there are fewer samples than ranks.
std::vector<std::int64_t> share_out(std::vector<MicroBatch>& micro_batches, int ranks,
                                    bool keep_order);

/// Tokens of every sample of a split: the elements of its ragged columns of token ids together; 1
/// where it has none.
std::vector<std::int64_t> sample_lengths(const Split& split);

struct LoaderOptions {
  std::int64_t global_batch = 16;
  std::uint64_t seed = 0;
  std::int64_t shuffle_block = 1;  // Sampler's
  PlanOptions plan;
  // micro-batches are never cut, and summed in the order of the plan
  bool reproducible = false;
  std::size_t ahead = 4;  // batches held ready by a thread; 0: none, next() reads
  std::shared_ptr<const HiddenStates> hidden = nullptr;  // go with the batches
};

/// One rank's batches of a training split, augmented (Dataset::augment) from seeds that depend on
/// (seed, step, row) alone. Split and dataset must outlive it. A thread of the loader's own uses
/// both, so reading of HDF5 has to be safe from several threads.
class Loader final : public BatchSource {
 public:
  /// rank, ranks: of the data-parallel group. Errors: Sampler's.
  Loader(const Split& split, const Dataset& dataset, const LoaderOptions& options, int rank = 0,
         int ranks = 1);
  ~Loader() override;

  /// The plan holds until the next call. Steps in a row are read ahead; any other step starts anew.
  /// Errors: what reading, augmenting and collating the step's first batch throw; share_out's.
  const StepPlan& begin_step(std::int64_t step) override;
  /// This rank's next batch of the step; called plan.end - plan.first times. Errors as above, of
  /// this batch.
  Batch next() override;

  /// Time spent in the two calls above so far: what the loop has waited for data.
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
  Item head_;               // the first batch of the step, until next() hands it over
  std::int64_t taken_ = 0;  // of this step
  double waited_seconds_ = 0;
};

}  // namespace attune
