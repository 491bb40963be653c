// How fast the GPUs of ranks reach each other.
#pragma once
#include <attune/comm.hpp>

#include <string>
#include <vector>

namespace attune::program {

/// A table for rank 0, as lines: the bandwidth between the first GPU and each other one of a node,
/// and between the first GPU of the first node and that of each other node. Slow links are named
/// below it. Empty if the ranks have no GPUs; one sentence if a run could not share them out.
/// Collective.
std::vector<std::string> gpu_links(const Comm& world);

}  // namespace attune::program
