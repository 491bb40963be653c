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
  // Interruption::reason(): the state is saved; empty: the run came to its end
  std::string interrupted_by;
  std::string stop_reason;  // a callback's, when it ended the run early
};

struct Resume {
  bool wanted = false;
  bool anyway = false;  // also with other settings than the checkpoint's
};

/// Trains from the start, or from the newest whole checkpoint of the run. Collective. Errors: NaN
/// or infinite loss or gradient, unless they are to be skipped; a step none of whose targets is
/// trained on; a checkpoint of another run; out of memory.
Outcome run_loop(Session& session, const Resume& resume);

}  // namespace attune::train
