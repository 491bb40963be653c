// Jobs handed to sbatch: tried first, and refused in one sentence.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "slurm/site.hpp"

namespace attune::slurm {

/// Error when this machine cannot submit.
void check_can_submit();

/// Asks Slurm whether it would take the script, without queueing it. Error with Slurm's words, and what to change, when not.
void try_submission(const std::string& script, const config::SlurmOptions& options);

/// Queues it and returns the job id. Error as above.
std::string submit(const std::filesystem::path& script, const config::SlurmOptions& options);

/// Jobs submitted for a run or sweep, in its file "jobs": one id a line, the newest last.
std::vector<std::string> submitted_jobs(const std::filesystem::path& directory);
void note_submitted(const std::filesystem::path& directory, const std::string& id);

/// Error when a job that was submitted for one of these runs still waits or runs, or when a process trains there. One call of squeue for all.
void check_are_free(const std::vector<std::filesystem::path>& directories);

/// Makes a run's directory with its run file. Attempts and failures of what was submitted before no longer count.
void prepare_directory(const std::filesystem::path& directory, const std::string& run_file);

/// One more than the largest number of an array's element that this cluster takes, or the site does.
std::int64_t largest_array(const Site& site);

}  // namespace attune::slurm
