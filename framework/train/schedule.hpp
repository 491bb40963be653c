// How long the run is, and the learning rate over it.
#pragma once
#include <cstdint>

#include "config/run_config.hpp"

namespace attune::train {

/// train.steps, or as many steps as show every one of the samples at least train.epochs times.
std::int64_t steps_of(const config::TrainOptions& options, std::int64_t samples);

/// Linear warm-up over the first `warmup` share of the steps, then constant, linear or cosine to zero, as transformers' schedules
/// (get_linear_schedule_with_warmup, get_cosine_schedule_with_warmup). step counts from 0.
double learning_rate_at(std::int64_t step, std::int64_t steps, const config::TrainOptions& options);

}  // namespace attune::train
