// What of the user's environment reaches Slurm: variables that stand above a job script must not
// overrule the run file without a word.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "config/slurm_options.hpp"
#include "slurm/command.hpp"

namespace attune::slurm {

using Environment = std::map<std::string, std::string>;

/// That of this process.
Environment current_environment();

/// Without the options of Slurm's commands (SBATCH_*, SQUEUE_*, ...) and without what a job hands
/// down to the shells in it (SLURM_*, PMIX_*, ...).
Environment without_slurm(const Environment& all);

/// As posix_spawn takes it: "NAME=value".
std::vector<std::string> as_texts(const Environment& environment);

/// Runs one of Slurm's commands, whatever the environment says of its options.
Said run_slurm(const std::vector<std::string>& command);

/// Takes out of this process's environment how the step that it is in was bound: steps that it
/// starts are not bound so.
void forget_step();

/// A text with $NAME and ${NAME} replaced, as the shell has it in double quotes; \$ is a dollar
/// sign.
std::string with_variables_replaced(const std::string& text);

/// Options of sbatch that stand in the environment: those that the run file leaves open (account,
/// partition, time, ...) are taken over into `options`. Returns a sentence for everything that is
/// taken over or left aside.
std::vector<std::string> take_over(const Environment& environment, config::SlurmOptions& options);

}  // namespace attune::slurm
