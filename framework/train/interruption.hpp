// What makes a run save and end before its time: a signal, its own time limit, the end of its Slurm
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
  /// The time limit counts from now on. state_bytes: how much a checkpoint holds, to guess how long
  /// a save takes until one has told.
  Interruption(const config::TrainOptions& options, std::size_t state_bytes, Comm world);

  /// A piece of work that nothing can break off, such as one forward pass, has taken so long.
  void worked(double seconds) { longest_work_ = std::max(longest_work_, seconds); }
  void saved(double seconds) {
    save_ = save_is_known_ ? std::max(save_, seconds) : seconds;
    save_is_known_ = true;
  }

  /// As this rank sees it: a signal has come, or what time is left is just enough for one more
  /// piece of work and a checkpoint.
  bool wanted() const;
  /// When one rank of the run wants it, it happens on all. Collective.
  bool agree();
  /// To be called on every rank.
  void directory_is_lost();
  bool happened() const { return reason_ != 0; }
  /// "signal 15", "the time limit", "the end of the job", "the removal of its directory"; "" when
  /// nothing happened.
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
