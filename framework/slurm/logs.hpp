// Logs of a run's jobs.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "slurm/queue.hpp"

namespace attune::slurm {

/// Path of the log of job "12" or "12_3", for a run or a trial of a sweep.
std::filesystem::path log_of(const std::filesystem::path& run, const std::string& job);

/// The most recently written log of a run, whoever submitted its job; absent if there is none.
std::optional<std::filesystem::path> newest_log(const std::filesystem::path& run,
                                                const std::vector<std::string>& jobs);

/// Reason for the job's end from Slurm's last lines in a log, for clusters without accounting;
/// absent if there is none.
std::optional<Ending> ending_in_log(const std::filesystem::path& log);

}  // namespace attune::slurm
