#include <attune/callback.hpp>

namespace attune {

const char* name(Event event) {
  switch (event) {
    case Event::run_begin: return "run_begin";
    case Event::epoch_begin: return "epoch_begin";
    case Event::step_begin: return "step_begin";
    case Event::gradients_ready: return "gradients_ready";
    case Event::step_end: return "step_end";
    case Event::evaluated: return "evaluated";
    case Event::epoch_end: return "epoch_end";
    case Event::checkpoint_saved: return "checkpoint_saved";
    case Event::interrupted: return "interrupted";
    case Event::run_end: return "run_end";
  }
  return "";
}

}  // namespace attune
