// What a run must remember to go on as if it had not been interrupted. Random numbers need no
// saving: the generator is seeded anew for every micro-batch from (seed, step, place in the step),
// and the order of samples is a function of (seed, epoch, data).
#pragma once
#include <limits>
#include <set>

#include "checkpoint/checkpoint.hpp"
#include "evaluate/evaluate.hpp"
#include "train/updater.hpp"
#include "train/session.hpp"

namespace attune::train {

struct LoopState {
  std::int64_t step = 0;
  double seconds = 0;
  Metrics base;
  Metrics newest;
  std::int64_t micro_batch = 0;
  std::int64_t skipped_steps = 0;
  std::int64_t samples_without_target = 0;
  // interrupted before what follows the step, such as its evaluation, was done
  bool step_is_open = false;
  bool step_has_begun = false;   // the strategies were told of the next step, which was not taken
  std::set<std::string> frozen;  // what is trained, but not now
  // Metric::cost of the best evaluation by checkpoint.keep_best
  double least_cost = std::numeric_limits<double>::infinity();
};

Snapshot take_snapshot(Session& session, const Updater& updater, const LoopState& state);
/// Into the live tensors, in place. Error naming all that differs when the snapshot is of another
/// run: what would make the state meaningless (base model, data, strategy, ...) always; what merely
/// makes it another run (learning rate, seed, ...) unless `anyway`.
LoopState restore(Session& session, Updater& updater, const Snapshot& snapshot, bool anyway);
/// The strategy's state alone: for evaluation, generation and export.
void restore_weights(Session& session, const Snapshot& snapshot);

/// What of the settings keeps a run from being gone on with, "train.steps is 8 and was 6; ...";
/// empty when nothing does. Data and weights are compared when it is.
std::string differences_of_settings(const config::RunConfig& now, const config::RunConfig& then);

/// Folder of the checkpoints of a run.
std::filesystem::path checkpoint_folder(const config::RunConfig& config);

}  // namespace attune::train
