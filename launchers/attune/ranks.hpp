// Commands that run on one rank or many.
#pragma once
#include <attune/comm.hpp>

#include <functional>
#include <memory>
#include <vector>

#include "config/run_config.hpp"
#include "placement/place.hpp"
#include "placement/waiting.hpp"

namespace attune::program {

/// Starts MPI, runs work on every rank, with all of them as its argument, and returns the exit
/// code. What all ranks throw together is printed once; a rank or a group of ranks that throws
/// without the others ends them with its message.
int on_ranks(const std::function<int(const Comm&)>& work);

/// As [parallel] of the run file says; to be called before anything computes. Collective.
std::vector<placement::RankPlace> place_ranks(const config::ParallelOptions& options,
                                              const Comm& comm);

/// From now on this rank's threads wait for each other as its processors allow; the root says so
/// once where others crowd them.
std::unique_ptr<placement::Waiting> watch_waiting(const std::vector<placement::RankPlace>& places,
                                                  const Comm& comm);

}  // namespace attune::program
