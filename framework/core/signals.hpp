// SIGINT, SIGTERM and SIGUSR1 (sent by Slurm before the time limit) only set a flag, which long
// computations check between pieces of work.
#pragma once

namespace attune {

void watch_signals();
/// A write beyond the process's limit for files (ulimit -f) then fails as on a full disk, instead
/// of ending the process without a word.
void let_writes_fail();
/// Number of the signal received here, or by another rank that forwarded it; 0 if none. Never
/// returns to 0.
int signal_received();
/// Sets the flag as if the signal had been received here.
void note_signal(int signal);

}  // namespace attune
