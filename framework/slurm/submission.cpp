#include "slurm/submission.hpp"

#include <attune/error.hpp>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "core/files.hpp"
#include "run_directory/jobs.hpp"
#include "run_directory/lock.hpp"
#include "slurm/environment.hpp"
#include "slurm/reasons.hpp"
#include "slurm/queue.hpp"

namespace attune::slurm {
namespace fs = std::filesystem;
namespace {

/// Also where TMPDIR names a folder that is not there, as that of another job.
fs::path temporary_folder() {
  std::error_code missing;
  const auto folder = fs::temp_directory_path(missing);
  return missing ? fs::path("/tmp") : folder;
}

}  // namespace

void check_can_submit() {
  if (!is_installed("sbatch"))
    fail(
        "there is no sbatch on this machine: submit from a login node of the cluster; --print "
        "shows the job script here");
}

void try_submission(const std::string& script, const config::SlurmOptions& options) {
  const auto file = temporary_folder() / fmt::format("attune-{}.sbatch", ::getpid());
  write_text(file, script);
  auto said = run_slurm({"sbatch", "--test-only", file.string()});
  fs::remove(file);
  if (said.code != 0) fail("{}", explain_refusal(said.err, options));
}

std::string submit(const fs::path& script, const config::SlurmOptions& options) {
  const auto said = run_slurm({"sbatch", "--parsable", script.string()});
  if (said.code != 0) fail("{}", explain_refusal(said.err, options));
  const auto lines = lines_of(said.out);
  if (lines.empty()) throw Fault("sbatch accepted the job but returned no job id");
  return pieces_of(lines.back(), ';')[0];
}

void check_are_free(const std::vector<fs::path>& directories) {
  std::map<std::string, fs::path> runs;  // by job
  std::vector<std::string> ids;
  for (const auto& directory : directories) {
    run_directory::refuse_live_holder(directory, is_live);
    for (const auto& id : run_directory::submitted_jobs(directory)) {
      runs[id] = directory;
      ids.push_back(id);
    }
  }
  const auto queued = ask_queue(ids);
  for (const auto& job : queued.value_or(std::vector<QueuedJob>{})) {
    if (!job.is_live()) continue;
    const auto id = job.element.empty() ? job.id : job.array_id + "_" + job.element;
    fail(
        "{}: job {} of this run is already in the queue ({}); wait for it, `scancel {}`, or give "
        "this run another name",
        runs[id].string(), id, job.state, id);
  }
}

std::int64_t largest_array(const Site& site) {
  if (site.options.max_array > 0) return site.options.max_array;
  for (const auto& line : lines_of(run_slurm({"scontrol", "show", "config"}).out))
    if (line.starts_with("MaxArraySize"))
      return std::max(1, std::atoi(line.substr(line.find('=') + 1).c_str()));
  return 1000;
}

}  // namespace attune::slurm
