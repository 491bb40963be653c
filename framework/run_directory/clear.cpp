#include "run_directory/clear.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <set>

#include "run_directory/lock.hpp"
#include "run_directory/places.hpp"

namespace attune::run_directory {
namespace fs = std::filesystem;
namespace {

bool is_of_a_run(const std::string& name) {
  static const std::set<std::string> all{
      names::run_file, names::record,   names::metrics,     names::evaluation, names::not_finite,
      names::adapter,  names::model,    names::checkpoints, names::job_script, names::jobs,
      names::attempts, names::failures, names::launches,    names::launched};
  return all.contains(name) || (name.starts_with(".") && name.ends_with(".tmp"));
}

}  // namespace

std::vector<std::string> clear_run(const fs::path& directory) {
  std::vector<fs::path> of_a_run;
  std::vector<std::string> others;
  for (const auto& entry : fs::directory_iterator(directory)) {
    const auto name = entry.path().filename().string();
    if (is_of_lock(name) || is_log(name)) continue;
    if (is_of_a_run(name)) {
      of_a_run.push_back(entry.path());
      continue;
    }
    if (entry.is_directory() && holds_a_run(entry.path()))
      fail("{}: contains another run, {}, and is not replaced: give this run a different name",
           directory.string(), name);
    others.push_back(name);
  }
  for (const auto& path : of_a_run) fs::remove_all(path);
  std::ranges::sort(others);
  return others;
}

}  // namespace attune::run_directory
