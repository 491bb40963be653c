// Removal of Attune's files from a run directory.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace attune::run_directory {

/// Removes the files of a run, submission or trial, except its lock and job logs. Returns the
/// remaining foreign files. Error if the directory contains other runs.
std::vector<std::string> clear_run(const std::filesystem::path& directory);

}  // namespace attune::run_directory
