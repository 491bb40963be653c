#include "slurm/run_state.hpp"

#include <algorithm>
#include <ranges>

namespace attune::slurm {
using run_directory::Holder;
using run_directory::Life;
using run_directory::Progress;

const QueuedJob* job_of(const Progress& progress, const std::vector<QueuedJob>& queue) {
  for (const auto& id : std::views::reverse(progress.jobs))
    for (const auto& job : queue)
      if (job.is_called(id)) return &job;
  return nullptr;
}

std::string state_of(const Progress& progress, const std::vector<QueuedJob>& queue) {
  if (progress.is_finished()) return "done";
  const auto* job = job_of(progress, queue);
  const bool is_live = job && job->is_live();
  if (is_live && job->state == "PENDING") return progress.starts > 0 ? "requeued" : "queued";
  const auto in_queue = [&](const std::string& id) { return std::optional(has_live(queue, id)); };
  if (progress.holder && life_of(*progress.holder, Holder::this_process(), in_queue) == Life::alive)
    return "training";
  const bool is_ending = is_live && job->state == "COMPLETING";  // its ranks are gone, or going
  if (is_live && !is_ending) return "starting";
  const bool nothing_known = progress.last.empty() && progress.jobs.empty() && progress.step == 0;
  if (nothing_known && !progress.problem.empty()) return "unreadable";
  if (progress.last.empty()) return progress.jobs.empty() ? "new" : "unstarted";
  return progress.last == "interrupted" ? "interrupted" : "failed";
}

bool is_under_way(const std::string& state) {
  return state == "queued" || state == "requeued" || state == "starting" || state == "training";
}

}  // namespace attune::slurm
