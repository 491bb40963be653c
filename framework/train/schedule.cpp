#include "train/schedule.hpp"

#include <algorithm>
#include <cmath>

namespace attune::train {

std::int64_t steps_of(const config::TrainOptions& options, std::int64_t samples) {
  if (options.steps > 0) return options.steps;
  return static_cast<std::int64_t>(std::ceil(options.epochs * static_cast<double>(samples) /
                                             static_cast<double>(options.global_batch)));
}

double learning_rate_at(std::int64_t step, std::int64_t steps, const config::TrainOptions& options,
                        const Schedule& schedule) {
  const auto warmup =
      static_cast<std::int64_t>(std::ceil(options.warmup * static_cast<double>(steps)));
  if (step >= warmup) return options.learning_rate * schedule.factor({step, steps, warmup});
  const double start = schedule.warmup_start();
  const double done = static_cast<double>(step);
  const double all = static_cast<double>(std::max<std::int64_t>(1, warmup));
  if (start == 0) return options.learning_rate * done / all;
  return options.learning_rate * (start + (1 - start) * done / all);
}

}  // namespace attune::train
