// Start, completion and removal of a run's checkpoints.
#pragma once
#include <attune/callback.hpp>

#include <functional>

#include "checkpoint/writer.hpp"
#include "config/run_config.hpp"
#include "core/stopwatch.hpp"
#include "train/interruption.hpp"

namespace attune::train {

/// Updates run.saved_step. Calls saved() after each completed checkpoint.
class Saving {
 public:
  Saving(const config::CheckpointOptions& policy, std::filesystem::path folder, Run& run,
         Interruption& interruption, std::function<void()> saved);

  /// Whether this rank's part of a checkpoint is still being written.
  bool is_writing() const { return writer_.in_flight() && !writer_.part_is_done(); }
  /// Starts a checkpoint, also named "best" if is_best. It is completed during the following steps.
  /// A failure only prints a warning; training continues and older checkpoints remain valid.
  /// Collective.
  void begin(const Snapshot& snapshot, bool is_best);
  /// Waits for the pending checkpoint, if any, and completes it. Failures as for begin().
  /// Collective.
  void finish();
  /// Saves a checkpoint synchronously, unless this step already has one. Error if it cannot be
  /// written. Collective.
  void save_last(const std::function<Snapshot()>& snapshot, bool is_best);

 private:
  void start(const Snapshot& snapshot, bool is_best, bool staged);
  void publish();
  void unless_it_fails(const std::function<void()>& work);

  const config::CheckpointOptions& policy_;
  Run& run_;
  Interruption& interruption_;
  std::function<void()> saved_;
  std::filesystem::path folder_;
  CheckpointWriter writer_;
  std::int64_t step_ = 0;
  bool best_ = false;
  Stopwatch watch_;
};

}  // namespace attune::train
