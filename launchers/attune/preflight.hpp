// What the ranks of a job can do, found in seconds and before anything is loaded: whether each one
// computes, reaches the others and can write the run's files, and how fast.
#pragma once
#include <attune/mesh.hpp>

#include "config/run_config.hpp"

namespace attune::program {

/// Prints rates, and the ranks that are slower than the others. Leaves nothing behind but the
/// folder of the runs. Error: a rank computes or sums wrongly, or cannot write. Collective.
void preflight(const config::RunConfig& run, const Mesh& mesh);

}  // namespace attune::program
