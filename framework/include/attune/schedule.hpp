// A schedule gives the learning rate as a fraction of train.learning_rate. It depends only on the
// step and the length of the run.
#pragma once
#include <attune/api.hpp>

#include <algorithm>
#include <cstdint>

ATTUNE_API_BEGIN
namespace attune {

/// Position in a run: the step, counted from 0, the total number of steps, and the number of
/// warm-up steps (train.warmup).
struct ScheduleStep {
  std::int64_t step = 0;
  std::int64_t steps = 0;
  std::int64_t warmup = 0;

  std::int64_t after_warmup() const { return step - warmup; }
  std::int64_t steps_after_warmup() const { return std::max<std::int64_t>(1, steps - warmup); }
  /// Fraction of the steps after the warm-up that are done, in [0, 1).
  double progress() const {
    return static_cast<double>(after_warmup()) / static_cast<double>(steps_after_warmup());
  }
};

class Schedule {
 public:
  virtual ~Schedule() = default;
  /// Learning rate of a step after the warm-up, as a fraction of train.learning_rate.
  virtual double factor(const ScheduleStep& now) const = 0;
  /// Initial fraction of the linear warm-up, which rises to 1. Default: 0.
  virtual double warmup_start() const { return 0; }
};

}  // namespace attune
ATTUNE_API_END
