// Whether the ranks were started as their scheduler meant it. Every mismatch is explained: MPI
// itself would die, or run N times the same.
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

/// What is wrong with the way this process was started, to be asked before MPI is: srun without a
/// PMI leaves every task alone. "" when nothing is.
std::string wrong_start(const Variables& variable);
/// The same once MPI is up and has so many ranks.
std::string wrong_size(const Variables& variable, int ranks);

/// Where the ranks that really started are not those that were asked for: one sentence each.
std::vector<std::string> differences(const config::AskedRanks& asked,
                                     const std::vector<placement::RankPlace>& ranks);

/// The variable that says that the job has GPUs, as "SLURM_GPUS_ON_NODE=2"; "" when it has none,
/// and outside of jobs.
std::string gpus_of_job(const Variables& variable);

/// Error when the job has GPUs and the run, whose device is "auto", finds none to use; a note when
/// it is to leave them idle. uses_gpu: of the ranks here. Collective.
void check_gpus(const config::RunConfig& run, bool uses_gpu, const Comm& comm);

/// In a job of Slurm, the differences to stderr of rank 0.
void check_asked(const config::RunConfig& run, const std::vector<placement::RankPlace>& ranks,
                 const Comm& comm);

/// Error when ranks do not find each other. Collective.
void check_launch(const Comm& comm);

}  // namespace attune::slurm
