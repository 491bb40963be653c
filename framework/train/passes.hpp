// Forward contexts for the passes of a run.
#pragma once
#include <attune/forward.hpp>

#include "train/session.hpp"

namespace attune::train {

/// Context of a training step (counted from 0). Moves the batch to the run's device, unless the run
/// is planned.
ForwardContext training_pass(const Session& session, Batch batch, std::int64_t step);
/// Context for computations of strategies before the first step.
ForwardContext preparing_pass(const Session& session, Batch batch);

}  // namespace attune::train
