// Submission to sbatch, with a prior test and one-sentence errors.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "slurm/site.hpp"

namespace attune::slurm {

/// Error if this machine cannot submit jobs.
void check_can_submit();

/// Tests whether Slurm would accept the script, without queueing it. Error with Slurm's message and
/// what to change if not.
void try_submission(const std::string& script, const config::SlurmOptions& options);

/// Queues the script and returns the job id. Error as for try_submission().
std::string submit(const std::filesystem::path& script, const config::SlurmOptions& options);

/// Error if a submitted job of one of these runs is still pending or running, or a process trains
/// there. Calls squeue once for all.
void check_are_free(const std::vector<std::filesystem::path>& directories);

/// Exclusive upper limit of array indices: the site's max_array, or the cluster's MaxArraySize.
std::int64_t largest_array(const Site& site);

}  // namespace attune::slurm
