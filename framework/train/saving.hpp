// When a run's checkpoints are begun, become whole, and go.
#pragma once
#include <attune/callback.hpp>

#include <functional>

#include "checkpoint/writer.hpp"
#include "config/run_config.hpp"
#include "core/stopwatch.hpp"
#include "train/interruption.hpp"

namespace attune::train {

/// Keeps run.saved_step. saved() is called whenever a checkpoint has become whole.
class Saving {
 public:
  Saving(const config::CheckpointOptions& policy, std::filesystem::path folder, Run& run,
         Interruption& interruption, std::function<void()> saved);

  /// This rank's part of a checkpoint is not yet on the disk.
  bool is_writing() const { return writer_.in_flight() && !writer_.part_is_done(); }
  /// Begins one, which is named "best" as well where it is; it becomes whole behind the next steps.
  /// A failure is told, and the training goes on: older checkpoints are as they were. Collective.
  void begin(const Snapshot& snapshot, bool is_best);
  /// Makes the one that was begun whole, waiting for it; nothing when there is none. Failures as
  /// above. Collective.
  void finish();
  /// One that must succeed, unless this step has one already. Collective. Error when it cannot be
  /// written.
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
