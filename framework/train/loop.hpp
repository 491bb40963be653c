// The training loop.
#pragma once
#include "evaluate/evaluate.hpp"
#include "train/session.hpp"

namespace attune::train {

struct Outcome {
  Metrics base, tuned;
  std::int64_t evaluated_samples = 0;
  std::int64_t step = 0;
  bool interrupted = false;  // by a signal; the state is saved
  std::string stop_reason;   // a callback's, when it ended the run early
};

/// Trains from the start, or from the newest whole checkpoint of the run when `resume`. Collective. Errors: NaN or infinite loss or
/// gradient; a step none of whose targets is trained on; a checkpoint of another run.
Outcome run_loop(Session& session, bool resume);

}  // namespace attune::train
