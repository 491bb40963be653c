// The state of a run, from its files and the queue.
#pragma once
#include <string>
#include <vector>

#include "run_directory/progress.hpp"
#include "slurm/queue.hpp"

namespace attune::slurm {

/// "new", "queued", "starting", "training", "requeued", "interrupted", "failed", "done",
/// "unstarted" when its jobs are gone and it never began, and "unreadable" when nothing is known of
/// it. queue: the jobs that Slurm still knows.
std::string state_of(const run_directory::Progress& progress, const std::vector<QueuedJob>& queue);

/// The newest job of the run in the queue; nullptr when it is not there.
const QueuedJob* job_of(const run_directory::Progress& progress,
                        const std::vector<QueuedJob>& queue);

/// Of a state_of: it waits or runs.
bool is_under_way(const std::string& state);

}  // namespace attune::slurm
