#include "slurm/logs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "core/tail.hpp"
#include "run_directory/jobs.hpp"
#include "run_directory/places.hpp"

namespace attune::slurm {
namespace fs = std::filesystem;
namespace {

/// Of the n-th array of a sweep: the element's log among "arrays". "" when the job is not the
/// sweep's.
fs::path log_in_sweep(const fs::path& sweep, const std::string& job) {
  const auto split = job.find('_');
  if (split == std::string::npos || !fs::exists(sweep / "sweep.toml")) return {};
  const auto arrays = run_directory::submitted_jobs(sweep);
  const auto array = std::find(arrays.begin(), arrays.end(), job.substr(0, split));
  if (array == arrays.end()) return {};
  return sweep / "arrays" /
         fmt::format("{:04}-{}.log", array - arrays.begin() + 1, job.substr(split + 1));
}

}  // namespace

fs::path log_of(const fs::path& run, const std::string& job) {
  const auto folder = run.has_filename() ? run : run.parent_path();  // "runs/a/" is runs/a
  const auto in_sweep = log_in_sweep(folder.parent_path(), job);
  return in_sweep.empty() ? run_directory::job_log(run, job) : in_sweep;
}

std::optional<fs::path> newest_log(const fs::path& run, const std::vector<std::string>& jobs) {
  std::vector<fs::path> logs;
  for (const auto& entry : fs::directory_iterator(run))
    if (run_directory::is_log(entry.path().filename().string())) logs.push_back(entry.path());
  for (const auto& job : jobs)
    if (const auto log = log_of(run, job); fs::exists(log)) logs.push_back(log);
  if (logs.empty()) return std::nullopt;
  const auto older = [](const fs::path& a, const fs::path& b) {
    return fs::last_write_time(a) < fs::last_write_time(b);
  };
  return *std::max_element(logs.begin(), logs.end(), older);
}

std::optional<Ending> ending_in_log(const fs::path& log) {
  static const std::pair<const char*, const char*> words[] = {
      {"DUE TO TIME LIMIT", "TIMEOUT"},    {"DUE TO NODE FAILURE", "NODE_FAIL"},
      {"DUE TO PREEMPTION", "PREEMPTED"},  {"oom-kill event", "OUT_OF_MEMORY"},
      {"oom_kill event", "OUT_OF_MEMORY"}, {"Out Of Memory", "OUT_OF_MEMORY"},
      {" CANCELLED AT ", "CANCELLED"},
  };
  std::optional<Ending> ending;
  for (const auto& line : last_lines(log, 20)) {
    const auto found = std::find_if(std::begin(words), std::end(words), [&](const auto& one) {
      return line.find(one.first) != std::string::npos;
    });
    const bool says_more =
        found != std::end(words) && (!ending || std::string_view(found->second) != "CANCELLED");
    if (says_more) ending = Ending{found->second, "", ""};
  }
  return ending;
}

}  // namespace attune::slurm
