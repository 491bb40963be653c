// SIGINT, SIGTERM and SIGUSR1 (what Slurm sends before the end) set a flag and nothing else; who
// works in pieces looks at it between them.
#pragma once

namespace attune {

void watch_signals();
/// The number of the signal that came, here or on another rank that passed it on, or 0. Never goes
/// back to 0.
int signal_received();
/// As if it had come here.
void note_signal(int signal);

}  // namespace attune
