// attune cancel: takes the jobs of runs out of the queue.
#include <iostream>

#include "command.hpp"
#include "run_places.hpp"
#include "slurm/environment.hpp"
#include "slurm/run_state.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;
using slurm::QueuedJob;

struct Wanted {
  RunPlace place;
  std::vector<run_directory::Progress> runs;
  std::vector<std::string> ids;  // of all jobs that were ever submitted for them
};

Wanted read_wanted(const std::string& given) {
  Wanted wanted{find_runs(given), {}, {}};
  const auto& place = wanted.place;
  if (place.kind == RunPlace::Kind::folder)
    fail("{}: is a folder of {} run{}; name the runs to cancel, such as {}/*", given,
         place.runs.size(), place.runs.size() == 1 ? "" : "s", given);
  for (const auto& run : place.runs) {
    wanted.runs.push_back(run_directory::read_progress(run));
    const auto& p = wanted.runs.back();
    if (!p.problem.empty() && p.jobs.empty())
      fail("{}: its jobs are unknown: {}", run.string(), p.problem);
    wanted.ids.insert(wanted.ids.end(), p.jobs.begin(), p.jobs.end());
  }
  return wanted;
}

/// Those in the queue, as scancel takes them.
std::vector<std::string> live_jobs(const Wanted& wanted, const std::vector<QueuedJob>& queue) {
  std::vector<std::string> live;
  for (const auto& run : wanted.runs)
    for (const auto& id : run.jobs)
      for (const auto& job : queue)
        if (job.is_live() && job.is_called(id)) live.push_back(id);
  return live;
}

std::string why_not_queued(const Wanted& wanted, const std::vector<QueuedJob>& queue) {
  const auto place = wanted.place.path.string();
  if (!wanted.place.is_one())
    return fmt::format("{}: none of its {} runs is in the queue", place, wanted.runs.size());
  const auto& run = wanted.runs.front();
  const auto state = slurm::state_of(run, queue);
  const bool is_here = state == "training" && run.holder && run.holder->job.empty();
  if (is_here)
    return fmt::format(
        "{}: is trained by {}, not by a Slurm job; `kill -TERM {}` there makes it save its state "
        "and end",
        place, run.holder->name(), run.holder->pid);
  if (run.jobs.empty())
    return fmt::format("{}: was not submitted, so it has no job in the queue", place);
  return fmt::format("{}: job {} is no longer in the queue; the run is {}", place, run.jobs.back(),
                     state);
}

void cancel_jobs(const std::vector<std::string>& ids) {
  constexpr std::size_t at_once = 5000;  // of a command line
  for (std::size_t from = 0; from < ids.size(); from += at_once) {
    std::vector<std::string> command{"scancel"};
    const auto to = std::min(ids.size(), from + at_once);
    command.insert(command.end(), ids.begin() + static_cast<std::ptrdiff_t>(from),
                   ids.begin() + static_cast<std::ptrdiff_t>(to));
    const auto said = slurm::run_slurm(command);
    if (said.code == 127)
      fail("there is no scancel on this machine: cancel from a login node of the cluster");
    if (said.code != 0)
      fail("scancel failed: {}", lines_of(said.err + "\nno reason is given").front());
  }
}

std::string done_text(const Wanted& wanted, const std::vector<std::string>& cancelled) {
  const auto place = wanted.place.path.string();
  if (wanted.place.is_one())
    return fmt::format("{}: job {} is cancelled; a run that has begun saves its state", place,
                       cancelled.back());
  return fmt::format("{}: {} of {} runs are cancelled; the others are not in the queue", place,
                     cancelled.size(), wanted.runs.size());
}

int cancel(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("run", options::value<std::vector<std::string>>()->required(),
                            "run directories, job arrays or sweeps");
  const auto values = parse(cancel_command, arguments, description, {{"run", -1}});
  if (!values) return static_cast<int>(ExitCode::done);

  std::vector<Wanted> all;
  std::vector<std::string> ids;
  for (const auto& given : (*values)["run"].as<std::vector<std::string>>()) {
    all.push_back(read_wanted(given));
    ids.insert(ids.end(), all.back().ids.begin(), all.back().ids.end());
  }
  const auto queue = slurm::ask_queue(ids);
  if (!queue)
    fail(
        "Slurm cannot be queried (squeue is missing or gets no answer): nothing is cancelled; try "
        "again on a login node of the cluster");
  bool any = false;
  std::string last_refused;
  for (const auto& wanted : all) {
    const auto live = live_jobs(wanted, *queue);
    if (!last_refused.empty()) std::cerr << "attune: " << last_refused << "\n";
    last_refused = live.empty() ? why_not_queued(wanted, *queue) : "";
    if (live.empty()) continue;
    cancel_jobs(live);
    any = true;
    std::cout << done_text(wanted, live) << "\n" << std::flush;
  }
  if (!any) fail("{}", last_refused);
  if (!last_refused.empty()) std::cerr << "attune: " << last_refused << "\n";
  return static_cast<int>(ExitCode::done);
}

}  // namespace

const Command cancel_command{"cancel", "RUN|ARRAY|SWEEP...",
                             "cancels the jobs of runs; training runs save their state first",
                             cancel};

}  // namespace attune::program
