#include "run_directory/places.hpp"

#include <algorithm>

namespace attune::run_directory {
namespace fs = std::filesystem;

bool is_log(const std::string& name) {
  return name == names::trial_log || (name.starts_with("slurm-") && name.ends_with(".log"));
}

bool is_run_directory(const Path& path) {
  return fs::is_directory(path) && fs::exists(run_file(path));
}

bool has_begun(const Path& run) { return fs::exists(metrics_file(run)); }

bool holds_a_run(const Path& folder) {
  const auto is_there = [](const Path& file) {
    std::error_code unreadable;
    return fs::exists(file, unreadable);
  };
  return is_there(run_file(folder)) || is_there(metrics_file(folder)) ||
         is_there(record_file(folder));
}

}  // namespace attune::run_directory
