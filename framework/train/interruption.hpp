// Reasons for a run to save and end early: a signal, the run's time limit, the end of its Slurm
// job, or the loss of its directory.
#pragma once
#include <attune/comm.hpp>

#include <chrono>
#include <optional>
#include <string>

#include "config/run_config.hpp"

namespace attune::train {

class Interruption {
 public:
  /// Starts the time limit. state_bytes: size of a checkpoint, for an initial estimate of the save
  /// time.
  Interruption(const config::TrainOptions& options, std::size_t state_bytes, Comm world);

  /// Records the duration in seconds of an uninterruptible piece of work, such as one forward pass.
  void worked(double seconds) { longest_work_ = std::max(longest_work_, seconds); }
  void saved(double seconds) {
    save_ = save_is_known_ ? std::max(save_, seconds) : seconds;
    save_is_known_ = true;
  }

  /// Whether this rank wants to stop: it received a signal, or the remaining time only suffices for
  /// one more piece of work and a checkpoint.
  bool wanted() const;
  /// Whether any rank of the run wants to stop; then all ranks do. Collective.
  bool agree();
  /// Records the loss of the directory. Must be called on every rank.
  void directory_is_lost();
  bool happened() const { return reason_ != 0; }
  /// "signal 15", "the time limit", "the end of the job" or "the removal of its directory"; "" if
  /// not interrupted.
  std::string reason() const;

 private:
  using Clock = std::chrono::steady_clock;
  bool time_is_up() const;

  Comm world_;
  std::optional<Clock::time_point> end_;
  double longest_work_ = 0;
  double save_;
  bool save_is_known_ = false;
  bool ends_with_job_ = false;
  std::int64_t reason_ = 0;
};

}  // namespace attune::train
