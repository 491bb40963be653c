// The passes that a run makes, as contexts for its model.
#pragma once
#include <attune/forward.hpp>

#include "train/session.hpp"

namespace attune::train {

/// Of a training step (from 0); the batch goes to the run's device, unless the run is planned.
ForwardContext training_pass(const Session& session, Batch batch, std::int64_t step);
/// For what strategies compute of data before the first step.
ForwardContext preparing_pass(const Session& session, Batch batch);

}  // namespace attune::train
