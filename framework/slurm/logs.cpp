#include "slurm/logs.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "slurm/command.hpp"
#include "slurm/submission.hpp"

namespace attune::slurm {
namespace fs = std::filesystem;
namespace {

/// Of the n-th array of a sweep: the element's log among "arrays". "" when the job is not the sweep's.
fs::path log_in_sweep(const fs::path& sweep, const std::string& job) {
  const auto split = job.find('_');
  if (split == std::string::npos || !fs::exists(sweep / "sweep.toml")) return {};
  const auto arrays = submitted_jobs(sweep);
  const auto array = std::find(arrays.begin(), arrays.end(), job.substr(0, split));
  if (array == arrays.end()) return {};
  return sweep / "arrays" / fmt::format("{:04}-{}.log", array - arrays.begin() + 1, job.substr(split + 1));
}

bool is_log(const fs::path& file) {
  const auto name = file.filename().string();
  return name == "trial.log" || (name.starts_with("slurm-") && name.ends_with(".log"));
}

/// The last lines of a file.
std::vector<std::string> last_lines(const fs::path& path, std::size_t count) {
  constexpr std::streamoff tail_bytes = 16 << 10;
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return {};
  file.seekg(std::max<std::streamoff>(0, static_cast<std::streamoff>(file.tellg()) - tail_bytes));
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  auto lines = lines_of(text);
  if (lines.size() > count) lines.erase(lines.begin(), lines.end() - static_cast<std::ptrdiff_t>(count));
  return lines;
}

}  // namespace

fs::path log_of(const fs::path& run, const std::string& job) {
  const auto folder = run.has_filename() ? run : run.parent_path();  // "runs/a/" is runs/a
  const auto in_sweep = log_in_sweep(folder.parent_path(), job);
  return in_sweep.empty() ? run / fmt::format("slurm-{}.log", job) : in_sweep;
}

std::optional<fs::path> newest_log(const fs::path& run, const std::vector<std::string>& jobs) {
  std::vector<fs::path> logs;
  for (const auto& entry : fs::directory_iterator(run))
    if (is_log(entry.path())) logs.push_back(entry.path());
  for (const auto& job : jobs)
    if (const auto log = log_of(run, job); fs::exists(log)) logs.push_back(log);
  if (logs.empty()) return std::nullopt;
  const auto older = [](const fs::path& a, const fs::path& b) { return fs::last_write_time(a) < fs::last_write_time(b); };
  return *std::max_element(logs.begin(), logs.end(), older);
}

std::optional<Ending> ending_in_log(const fs::path& log) {
  static const std::pair<const char*, const char*> words[] = {
      {"DUE TO TIME LIMIT", "TIMEOUT"},      {"DUE TO NODE FAILURE", "NODE_FAIL"},  {"DUE TO PREEMPTION", "PREEMPTED"},
      {"oom-kill event", "OUT_OF_MEMORY"},   {"oom_kill event", "OUT_OF_MEMORY"},   {"Out Of Memory", "OUT_OF_MEMORY"},
      {" CANCELLED AT ", "CANCELLED"},
  };
  std::optional<Ending> ending;
  for (const auto& line : last_lines(log, 20)) {
    const auto found = std::find_if(std::begin(words), std::end(words), [&](const auto& one) { return line.find(one.first) != std::string::npos; });
    const bool says_more = found != std::end(words) && (!ending || std::string_view(found->second) != "CANCELLED");
    if (says_more) ending = Ending{found->second, "", ""};
  }
  return ending;
}

std::string failed_launches(const fs::path& run) {
  std::ifstream file(run / "launches");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto launches = lines_of(text);
  if (launches.empty()) return "";
  const auto nodes = pieces_of(launches.back(), ' ').back();
  const auto where = nodes == "unknown" ? "" : " on " + nodes;
  if (launches.size() == 1) return "the launch failed" + where;
  return fmt::format("the launch failed {} times in a row{}", launches.size(), where);
}

}  // namespace attune::slurm
