// State of a run, from its files and Slurm's queue.
#pragma once
#include <string>
#include <vector>

#include "run_directory/progress.hpp"
#include "slurm/queue.hpp"

namespace attune::slurm {

/// "new", "queued", "starting", "training", "requeued", "interrupted", "failed" or "done";
/// "unstarted" if its jobs are gone and it never began; "unreadable" if its state is unknown.
/// queue: jobs that Slurm still knows.
std::string state_of(const run_directory::Progress& progress, const std::vector<QueuedJob>& queue);

/// The run's newest job in the queue; nullptr if there is none.
const QueuedJob* job_of(const run_directory::Progress& progress,
                        const std::vector<QueuedJob>& queue);

/// Whether a state_of() result means that the run is pending or running.
bool is_under_way(const std::string& state);

}  // namespace attune::slurm
