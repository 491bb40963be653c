// Commands that run on one rank or many.
#pragma once
#include <attune/comm.hpp>

#include <functional>

namespace attune::program {

/// Starts MPI, runs work on every rank and returns the exit code. What all ranks throw together is printed once; a rank that throws
/// alone ends the others with its message.
int on_ranks(const std::function<int(const Comm&)>& work);

}  // namespace attune::program
