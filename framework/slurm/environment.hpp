// Filtering of the user's environment for Slurm: its variables take precedence over a job script,
// and must not silently override the run file.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "config/slurm_options.hpp"
#include "slurm/command.hpp"

namespace attune::slurm {

using Environment = std::map<std::string, std::string>;

/// The environment of this process.
Environment current_environment();

/// Removes options of Slurm's commands (SBATCH_*, SQUEUE_*, ...), and variables that a job sets for
/// its shells (SLURM_*, PMIX_*, ...).
Environment without_slurm(const Environment& all);

/// "NAME=value" texts for posix_spawn.
std::vector<std::string> as_texts(const Environment& environment);

/// Runs a Slurm command without options from the environment.
Said run_slurm(const std::vector<std::string>& command);

/// Removes the binding of the current job step from this process's environment, so that steps it
/// starts do not inherit it.
void forget_step();

/// Replaces $NAME and ${NAME} as a shell does in double quotes; \$ is a literal dollar sign.
std::string with_variables_replaced(const std::string& text);

/// Copies sbatch options from the environment into `options`, if the run file does not set them
/// (account, partition, time, ...). Returns a sentence for each option that is used or ignored.
std::vector<std::string> take_over(const Environment& environment, config::SlurmOptions& options);

}  // namespace attune::slurm
