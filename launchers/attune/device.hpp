// The device of a run, before anything is loaded.
#pragma once
#include <attune/comm.hpp>

#include "config/run_config.hpp"

namespace attune::program {

/// Error in a job that has GPUs which the run would not use. Collective.
void refuse_idle_gpus(const config::RunConfig& run, const Comm& comm);

}  // namespace attune::program
