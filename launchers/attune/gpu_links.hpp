// How fast the GPUs of ranks reach each other.
#pragma once
#include <attune/comm.hpp>

#include <string>
#include <vector>

namespace attune::program {

/// Text for rank 0.
struct GpuLinks {
  // a table of the bandwidth between the first GPU and each other one of a node, and between the
  // first GPU of the first node and that of each other node; below it, slow links are named; empty
  // if the ranks have no GPUs
  std::vector<std::string> lines;
  std::string refusal;  // why a run could not share the GPUs out, or would leave a job's idle
};
/// Collective.
GpuLinks gpu_links(const Comm& world);

}  // namespace attune::program
