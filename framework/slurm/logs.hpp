// Logs of a run's jobs.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "slurm/queue.hpp"

namespace attune::slurm {

/// Where the job "12" or "12_3" of a run, or of a trial of a sweep, writes.
std::filesystem::path log_of(const std::filesystem::path& run, const std::string& job);

/// The log of a run that was written last, whoever submitted its job; no value when there is none.
std::optional<std::filesystem::path> newest_log(const std::filesystem::path& run,
                                                const std::vector<std::string>& jobs);

/// What Slurm wrote at the end of a log when it ended the job, for a cluster that has forgotten it;
/// no value when nothing of the kind is there.
std::optional<Ending> ending_in_log(const std::filesystem::path& log);

}  // namespace attune::slurm
