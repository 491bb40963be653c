// A run directory is cleared of what Attune wrote there.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace attune::run_directory {

/// Removes what a run, a submission or a trial left, but for its lock and the logs of jobs. Returns
/// what else is there, which stays. Error when other runs lie in it.
std::vector<std::string> clear_run(const std::filesystem::path& directory);

}  // namespace attune::run_directory
