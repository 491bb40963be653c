// State of a run in its checkpoints. Random-number state is not saved: generators are seeded for
// each micro-batch from (seed, step, index in the step), and the order of samples is a function of
// (seed, epoch, data).
#pragma once
#include <limits>
#include <set>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/stored_state.hpp"
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
  bool step_has_begun = false;   // on_step was called for the next step, which was not taken
  std::set<std::string> frozen;  // trainable parameters that are frozen at the moment
  // Metric::cost of the best evaluation, by checkpoint.keep_best
  double least_cost = std::numeric_limits<double>::infinity();
};

/// Of what ranks share out, the first copy is kept.
Snapshot take_snapshot(Session& session, const Updater& updater, const parallel::Sharing& sharing,
                       const LoopState& state);
/// Restores the live tensors in place. Error if the state belongs to another run; it names all
/// differences. Differences that invalidate the state (base model, data, strategy, ...) are always
/// an error. Other differences (learning rate, seed, ...) are accepted if `anyway`. Nothing is
/// changed before all of it is known to fit. Collective.
LoopState restore(Session& session, Updater& updater, const StoredState& stored, bool anyway);
/// Restores only the strategies' state, for evaluation, generation and export. Collective.
void restore_weights(Session& session, const StoredState& stored);

/// Settings that prevent a resume, "train.steps is 8 and was 6; ..."; empty if there are none. Data
/// and weights are compared later, during the resume.
std::string differences_of_settings(const config::RunConfig& now, const config::RunConfig& then);

/// Folder of a run's checkpoints.
std::filesystem::path checkpoint_folder(const config::RunConfig& config);

}  // namespace attune::train
