// Length of the run, and its learning rate.
#pragma once
#include <attune/schedule.hpp>

#include <cstdint>

#include "config/run_config.hpp"

namespace attune::train {

/// train.steps, or the number of steps after which every sample was seen at least train.epochs
/// times.
std::int64_t steps_of(const config::TrainOptions& options, std::int64_t samples);

/// Linear warm-up over the first train.warmup fraction of the steps, then train.learning_rate times
/// the schedule's factor. step counts from 0.
double learning_rate_at(std::int64_t step, std::int64_t steps, const config::TrainOptions& options,
                        const Schedule& schedule);

}  // namespace attune::train
