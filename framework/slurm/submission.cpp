#include "slurm/submission.hpp"

#include <attune/error.hpp>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>

#include "core/files.hpp"
#include "core/names.hpp"
#include "slurm/command.hpp"
#include "slurm/run_lock.hpp"

namespace attune::slurm {
namespace fs = std::filesystem;
namespace {

/// What sinfo prints, one thing a line, as a list for a message.
std::string known_by_sinfo(const std::string& format) {
  auto known = lines_of(run_command({"sinfo", "--noheader", "--format=" + format}).out);
  std::sort(known.begin(), known.end());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  return known.empty() ? "sinfo names them" : "there are: " + joined(known);
}

std::string wishes(const config::SlurmOptions& o) {
  const auto many = [](std::int64_t count, const char* what) { return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s"); };
  auto text = fmt::format("{} of {} with {}", many(o.nodes, "node"), many(o.tasks_per_node, "task"), many(o.cpus_per_task, "processor"));
  if (o.gpus_per_node > 0) text += fmt::format(", {} a node", many(o.gpus_per_node, "GPU"));
  if (!o.memory.empty()) text += fmt::format(", {} of memory a node", o.memory);
  return text;
}

/// The last line that says why.
std::string words_of(const std::string& said) {
  std::string words;
  for (auto line : lines_of(said)) {
    for (const std::string_view start : {"sbatch: error: ", "sbatch: ", "allocation failure: ", "Batch job submission failed: "})
      if (line.starts_with(start)) line.erase(0, start.size());
    if (!line.empty() && !line.starts_with("Try ")) words = line;
  }
  return words.empty() ? "no reason is given" : words;
}

}  // namespace

void check_can_submit() {
  if (!is_installed("sbatch")) fail("there is no sbatch on this machine: submit from a login node of the cluster; --print shows the job script here");
}

std::string explain_refusal(const std::string& said, const config::SlurmOptions& options) {
  const auto says = [&](const char* text) { return said.find(text) != std::string::npos; };
  std::string cure = "see [slurm] of the run file, and `scontrol show partition`";
  if (says("Unable to contact slurm controller")) cure = "the cluster's controller is down or cannot be reached; try again later";
  else if (says("nvalid partition")) cure = fmt::format("set slurm.partition, which is '{}' ({})", options.partition, known_by_sinfo("%R"));
  else if (says("nvalid account") || says("nvalid qos")) cure = "set slurm.account or slurm.qos; `sacctmgr show associations user=$USER` lists yours";
  else if (says("time limit")) cure = fmt::format("set slurm.time, which is '{}', to what the partition allows ({})", options.time, known_by_sinfo("%R %l"));
  else if (says("Node count") || says("node configuration") || says("More processors"))
    cure = fmt::format("it asks for {}; lower that in [slurm] ({})", wishes(options), known_by_sinfo("%R: %D nodes of %c processors and %m MB"));
  else if (says("Memory") || says("memory")) cure = fmt::format("set slurm.memory, which is '{}' ({})", options.memory, known_by_sinfo("%R: %m MB a node"));
  else if (says("eservation")) cure = fmt::format("set slurm.reservation, which is '{}'", options.reservation);
  else if (says("feature")) cure = fmt::format("set slurm.constraint, which is '{}' ({})", options.constraint, known_by_sinfo("%R: %f"));
  else if (says("job array")) cure = fmt::format("set slurm.array, which is '{}'", options.array);
  else if (says("ependency")) cure = fmt::format("set slurm.dependency, which is '{}'", options.dependency);
  else if (says("unrecognized option")) cure = "correct slurm.options";
  return fmt::format("Slurm does not take the job: {}: {}", words_of(said), cure);
}

void try_submission(const std::string& script, const config::SlurmOptions& options) {
  const auto file = fs::temp_directory_path() / fmt::format("attune-{}.sbatch", ::getpid());
  write_text(file, script);
  auto said = run_command({"sbatch", "--test-only", file.string()});
  fs::remove(file);
  if (said.code != 0) fail("{}", explain_refusal(said.err, options));
}

std::string submit(const fs::path& script, const config::SlurmOptions& options) {
  const auto said = run_command({"sbatch", "--parsable", script.string()});
  if (said.code != 0) fail("{}", explain_refusal(said.err, options));
  const auto lines = lines_of(said.out);
  if (lines.empty()) throw Fault("sbatch took the job and told no id");
  return pieces_of(lines.back(), ';')[0];
}

std::vector<std::string> submitted_jobs(const fs::path& directory) {
  return fs::exists(directory / "jobs") ? lines_of(read_text(directory / "jobs")) : std::vector<std::string>{};
}

void note_submitted(const fs::path& directory, const std::string& id) { std::ofstream(directory / "jobs", std::ios::app) << id << "\n"; }

void check_are_free(const std::vector<fs::path>& directories) {
  std::map<std::string, fs::path> runs;  // by job
  std::vector<std::string> ids;
  for (const auto& directory : directories) {
    refuse_live_holder(directory);
    for (const auto& id : submitted_jobs(directory)) {
      runs[id] = directory;
      ids.push_back(id);
    }
  }
  const auto queued = ask_queue(ids);
  for (const auto& job : queued.value_or(std::vector<QueuedJob>{})) {
    if (!job.is_live()) continue;
    const auto id = job.element.empty() ? job.id : job.array_id + "_" + job.element;
    fail("{}: job {} for it is in the queue already ({}); wait for it, `scancel {}`, or give this run another name", runs[id].string(), id, job.state, id);
  }
}

void prepare_directory(const fs::path& directory, const std::string& run_file) {
  fs::create_directories(directory);
  fs::remove(directory / "attempts");
  fs::remove(directory / "failures");
  write_text(directory / "run.toml", run_file);
}

std::int64_t largest_array(const Site& site) {
  if (site.options.max_array > 0) return site.options.max_array;
  for (const auto& line : lines_of(run_command({"scontrol", "show", "config"}).out))
    if (line.starts_with("MaxArraySize")) return std::max(1, std::atoi(line.substr(line.find('=') + 1).c_str()));
  return 1000;
}

}  // namespace attune::slurm
