// Why Slurm refuses a job, or does not start it: what its words mean, and which key of the run file
// to change.
#pragma once
#include <string>

#include "config/slurm_options.hpp"
#include "slurm/queue.hpp"

namespace attune::slurm {

/// Why sbatch refuses, from what it says: one sentence with the key of [slurm] to change.
std::string explain_refusal(const std::string& said, const config::SlurmOptions& options);

/// A reason of squeue's for a job that waits, with what it means and what to do; alone where it
/// passes by itself (Priority, Resources, ...).
std::string explain_waiting(const std::string& reason);

/// Why a job ended before its run was done: Slurm's state, what it means, and what to do.
std::string explain_ending(const Ending& ending);

}  // namespace attune::slurm
