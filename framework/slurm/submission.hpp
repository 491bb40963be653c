// Jobs handed to sbatch: tried first, and refused in one sentence.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "slurm/site.hpp"

namespace attune::slurm {

/// Error when this machine cannot submit.
void check_can_submit();

/// Asks Slurm whether it would take the script, without queueing it. Error with Slurm's words, and
/// what to change, when not.
void try_submission(const std::string& script, const config::SlurmOptions& options);

/// Queues it and returns the job id. Error as above.
std::string submit(const std::filesystem::path& script, const config::SlurmOptions& options);

/// Error when a job that was submitted for one of these runs still waits or runs, or when a process
/// trains there. One call of squeue for all.
void check_are_free(const std::vector<std::filesystem::path>& directories);

/// One more than the largest number of an array's element that this cluster takes, or the site
/// does.
std::int64_t largest_array(const Site& site);

}  // namespace attune::slurm
