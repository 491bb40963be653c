// Other processes that compute on this host.
#pragma once
#include <chrono>
#include <string>
#include <vector>

namespace attune::placement {

struct Neighbour {
  int process = 0;
  std::string name;
  double cores = 0;  // number of busy cores
};

struct Neighbours {
  // other processes that use at least a tenth of a core, busiest first
  std::vector<Neighbour> processes;
  // fraction of processor time that a hypervisor gave to other machines (steal time)
  double stolen = 0;
};

/// Measures for the duration `look` (/proc; proc_pid_stat(5), proc_stat(5)).
Neighbours neighbours(std::chrono::milliseconds look);

}  // namespace attune::placement
