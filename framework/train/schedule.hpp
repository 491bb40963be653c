// How long the run is, and the learning rate over it.
#pragma once
#include <attune/schedule.hpp>

#include <cstdint>

#include "config/run_config.hpp"

namespace attune::train {

/// train.steps, or as many steps as show every one of the samples at least train.epochs times.
std::int64_t steps_of(const config::TrainOptions& options, std::int64_t samples);

/// Linear warm-up over the first `warmup` share of the steps, then train.learning_rate times the
/// schedule's factor. step counts from 0.
double learning_rate_at(std::int64_t step, std::int64_t steps, const config::TrainOptions& options,
                        const Schedule& schedule);

}  // namespace attune::train
