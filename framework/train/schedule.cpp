#include "train/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace attune::train {

std::int64_t steps_of(const config::TrainOptions& options, std::int64_t samples) {
  if (options.steps > 0) return options.steps;
  return static_cast<std::int64_t>(std::ceil(options.epochs * static_cast<double>(samples) / static_cast<double>(options.global_batch)));
}

double learning_rate_at(std::int64_t step, std::int64_t steps, const config::TrainOptions& options) {
  const auto warmup = static_cast<std::int64_t>(std::ceil(options.warmup * static_cast<double>(steps)));
  if (step < warmup) return options.learning_rate * static_cast<double>(step) / static_cast<double>(std::max<std::int64_t>(1, warmup));
  const double progress = static_cast<double>(step - warmup) / static_cast<double>(std::max<std::int64_t>(1, steps - warmup));
  if (options.schedule == "linear") return options.learning_rate * (1 - progress);
  if (options.schedule == "cosine") return options.learning_rate * 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return options.learning_rate;
}

}  // namespace attune::train
