// Checks that the ranks were started as requested. Every mismatch is explained; otherwise MPI would
// abort, or run N independent copies.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include <attune/comm.hpp>

#include "config/run_config.hpp"
#include "core/host.hpp"
#include "placement/place.hpp"

namespace attune::slurm {

using attune::environment_variable;

/// Problem with the way this process was started, checked before MPI_Init: srun without PMI starts
/// independent tasks. "" if there is none.
std::string wrong_start(const Variables& variable);
/// The same after MPI_Init, from the number of ranks.
std::string wrong_size(const Variables& variable, int ranks);

/// Differences between the requested ranks and the actual ones, a sentence each.
std::vector<std::string> differences(const config::AskedRanks& asked,
                                     const std::vector<placement::RankPlace>& ranks);

/// The variable that shows the job's GPUs, "SLURM_GPUS_ON_NODE=2"; "" if it has none, or outside a
/// job.
std::string gpus_of_job(const Variables& variable);

/// Error if the job has GPUs, and the run's device is "auto" but no GPU is usable. Prints a note if
/// the run leaves GPUs idle. uses_gpu: whether this rank uses one. Collective.
void check_gpus(const config::RunConfig& run, bool uses_gpu, const Comm& comm);

/// In a Slurm job, prints the differences on stderr of rank 0.
void check_asked(const config::RunConfig& run, const std::vector<placement::RankPlace>& ranks,
                 const Comm& comm);

/// Error if the ranks do not form one MPI job. Collective.
void check_launch(const Comm& comm);

}  // namespace attune::slurm
