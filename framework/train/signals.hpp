// SIGINT, SIGTERM and SIGUSR1 (what Slurm sends before the end) set a flag and nothing else; the loop looks at it between steps.
#pragma once

namespace attune::train {

void watch_signals();
/// The number of the signal that came, or 0.
int signal_received();

}  // namespace attune::train
