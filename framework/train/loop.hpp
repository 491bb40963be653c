// The training loop.
#pragma once
#include "evaluate/evaluate.hpp"
#include "train/session.hpp"

namespace attune::train {

struct Outcome {
  Comparison found;
  std::int64_t evaluated_samples = 0;
  std::int64_t step = 0;
  std::int64_t skipped_steps = 0;
  // Interruption::reason(), in which case the state was saved; empty if the run completed
  std::string interrupted_by;
  std::string stop_reason;  // reason given by the callback that ended the run early
};

struct Resume {
  bool wanted = false;
  bool anyway = false;  // accept other settings than the checkpoint's
};

/// Trains from the start, or from the newest complete checkpoint of the run. Errors: non-finite
/// loss or gradients, unless they are to be skipped; a step without any target; a checkpoint of
/// another run; out of memory. Collective.
Outcome run_loop(Session& session, const Resume& resume);

}  // namespace attune::train
