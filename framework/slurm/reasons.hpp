// Explanations of Slurm's messages for rejected and pending jobs, with the run-file key to change.
#pragma once
#include <string>

#include "config/slurm_options.hpp"
#include "slurm/queue.hpp"

namespace attune::slurm {

/// Explains a rejection by sbatch in one sentence, with the key of [slurm] to change.
std::string explain_refusal(const std::string& said, const config::SlurmOptions& options);

/// Explains squeue's reason for a pending job and what to do. Reasons that need no action
/// (Priority, Resources, ...) are returned unchanged.
std::string explain_waiting(const std::string& reason);

/// Explains why a job ended before its run: Slurm's state, its meaning, and what to do.
std::string explain_ending(const Ending& ending);

}  // namespace attune::slurm
