// When a run must have saved and ended: its own time limit, or the end of its Slurm job.
#pragma once
#include <chrono>
#include <optional>

#include "config/run_config.hpp"

namespace attune::train {

class Deadline {
 public:
  using Clock = std::chrono::steady_clock;

  /// train.time_limit from now on, or SLURM_JOB_END_TIME, whichever comes first. state_bytes: how much a checkpoint holds.
  Deadline(const config::TrainOptions& options, std::size_t state_bytes);

  /// A piece of work that cannot be interrupted, such as one forward and backward pass, has taken so long.
  void worked(double seconds) { longest_work_ = std::max(longest_work_, seconds); }
  void saved(double seconds) { save_ = save_is_known_ ? std::max(save_, seconds) : seconds, save_is_known_ = true; }
  /// What is left is just enough for one more piece of work and a checkpoint.
  bool is_due() const;

 private:
  std::optional<Clock::time_point> end_;
  double longest_work_ = 0, save_;
  bool save_is_known_ = false;
};

}  // namespace attune::train
