// attune logs: what the newest job of a run wrote, and what it goes on to write.
#include <iostream>
#include <thread>

#include "command.hpp"
#include "log_tail.hpp"
#include "run_directory/places.hpp"
#include "run_places.hpp"
#include "slurm/logs.hpp"
#include "slurm/run_state.hpp"
#include "slurm/reasons.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;
namespace fs = std::filesystem;

/// Now, and what the queue says of its jobs.
struct Moment {
  run_directory::Progress progress;
  std::optional<fs::path> log;
  std::string waits;     // why its job waits, if it does
  bool goes_on = false;  // whether the log may grow
};

/// A run prints its result after its record says that it has finished. A trial's own log ends with
/// its lock: its job may run others for hours.
bool is_still_printing(const Moment& now, const slurm::QueuedJob* job) {
  const auto& holder = now.progress.holder;
  const bool runs = job && job->is_live() && job->state != "COMPLETING";
  return runs && (holder || (now.log && now.log->filename() != run_directory::names::trial_log));
}

Moment look_at(const fs::path& run) {
  Moment now{.progress = run_directory::read_progress(run)};
  const auto queue = slurm::ask_queue(now.progress.jobs);
  const auto* job = queue ? slurm::job_of(now.progress, *queue) : nullptr;
  if (job && job->state == "PENDING")
    now.waits = fmt::format("job {} waits: {}", job->name(), slurm::explain_waiting(job->reason));
  now.log = slurm::newest_log(run, now.progress.jobs);
  if (now.progress.is_finished())
    now.goes_on = is_still_printing(now, job);
  else
    // Without an answer the job may well go on: who follows it asks again. A job whose ranks are
    // gone is in the queue until its nodes are free, and may wait there again then.
    now.goes_on = !queue || slurm::is_under_way(slurm::state_of(now.progress, *queue)) ||
                  (job && job->is_live());
  return now;
}

std::string why_no_log(const fs::path& run, const Moment& now) {
  if (!now.progress.problem.empty())
    return fmt::format("{}: {}", run.string(), now.progress.problem);
  if (!now.waits.empty()) return fmt::format("{}: has no log yet: {}", run.string(), now.waits);
  if (!now.progress.jobs.empty() && now.progress.starts > 0)
    return fmt::format(
        "{}: the log of job {} is at the path in its script (#SBATCH --output; see also `scontrol "
        "show job {}`); the run's steps are in {}",
        run.string(), now.progress.jobs.back(), now.progress.jobs.back(),
        run_directory::metrics_file(run).string());
  if (!now.progress.jobs.empty())
    return fmt::format("{}: job {} has written no log", run.string(), now.progress.jobs.back());
  return fmt::format(
      "{}: was not submitted, so its output went to its terminal; its steps are in {}",
      run.string(), run_directory::metrics_file(run).string());
}

void print_all(const RunPlace& place) {
  std::size_t printed = 0;
  for (const auto& run : place.runs) {
    const auto progress = run_directory::read_progress(run);
    const auto log =
        progress.problem.empty() ? slurm::newest_log(run, progress.jobs) : std::nullopt;
    if (!log) {
      std::cerr << "attune: " << why_no_log(run, {.progress = progress, .log = log}) << "\n";
      continue;
    }
    std::cout << (printed++ > 0 ? "\n" : "") << "==> " << log->string() << " <==\n";
    LogTail(*log).print();
  }
  if (printed == 0)
    fail("{}: none of its {} runs has a log", place.path.string(), place.runs.size());
}

void print_one(const fs::path& run) {
  const auto now = look_at(run);
  if (!now.log) fail("{}", why_no_log(run, now));
  LogTail(*now.log).print();
}

/// Until the run is over: its job may be requeued meanwhile, or another go on for it.
void follow(const fs::path& run) {
  std::optional<LogTail> tail;
  std::string told;
  for (bool goes_on = true; goes_on;) {
    // before the log is read: what was written until the end is printed
    const auto now = look_at(run);
    goes_on = now.goes_on;
    if (!now.log && !goes_on) fail("{}", why_no_log(run, now));
    if (now.waits != told && !now.waits.empty()) std::cerr << "== " << now.waits << std::endl;
    told = now.waits;
    const bool is_other = now.log && (!tail || tail->log() != *now.log);
    if (tail) tail->print();
    if (is_other) tail.emplace(*now.log).print();
    if (goes_on) std::this_thread::sleep_for(std::chrono::seconds(2));
  }
}

int logs(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("run", options::value<std::string>()->required(),
                            "run directory, job array or sweep")(
      "follow,f", options::bool_switch(), "follow the log until the run ends, across requeues");
  const auto values = parse(logs_command, arguments, description, {{"run", 1}});
  if (!values) return static_cast<int>(ExitCode::done);
  const auto given = (*values)["run"].as<std::string>();
  const bool follows = (*values)["follow"].as<bool>();

  const auto place = find_runs(given);
  if (!place.is_one() && follows)
    fail("{}: has {} runs, but -f follows only one: name a run, such as {}", given,
         place.runs.size(), place.runs.front().string());
  if (!place.is_one())
    print_all(place);
  else if (follows)
    follow(place.path);
  else
    print_one(place.path);
  return static_cast<int>(ExitCode::done);
}

}  // namespace

const Command logs_command{"logs", "[-f] RUN|ARRAY|SWEEP",
                           "prints the log of a run's newest job; -f follows it", logs};

}  // namespace attune::program
