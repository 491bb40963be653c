// A schedule says which share of train.learning_rate a step has. It is a function of the step and
// the length of the run alone.
#pragma once
#include <attune/api.hpp>

#include <algorithm>
#include <cstdint>

ATTUNE_API_BEGIN
namespace attune {

/// A step, counted from 0, of a run of so many steps, of which the first ones are the warm-up
/// (train.warmup).
struct ScheduleStep {
  std::int64_t step = 0;
  std::int64_t steps = 0;
  std::int64_t warmup = 0;

  std::int64_t after_warmup() const { return step - warmup; }
  std::int64_t steps_after_warmup() const { return std::max<std::int64_t>(1, steps - warmup); }
  /// Share of the steps after the warm-up that are done: from 0, below 1.
  double progress() const {
    return static_cast<double>(after_warmup()) / static_cast<double>(steps_after_warmup());
  }
};

class Schedule {
 public:
  virtual ~Schedule() = default;
  /// Learning rate of a step after the warm-up, as a share of train.learning_rate.
  virtual double factor(const ScheduleStep& now) const = 0;
  /// The share from which the linear warm-up rises to 1. Default: 0
  virtual double warmup_start() const { return 0; }
};

}  // namespace attune
ATTUNE_API_END
