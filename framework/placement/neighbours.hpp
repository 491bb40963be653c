// Who else computes on this host.
#pragma once
#include <chrono>
#include <string>
#include <vector>

namespace attune::placement {

struct Neighbour {
  int process = 0;
  std::string name;
  double cores = 0;  // that it kept busy
};

struct Neighbours {
  // those that kept at least a tenth of a core busy, the busiest first; this process is none
  std::vector<Neighbour> processes;
  // of the processors' time, the share that a hypervisor gave to other machines
  double stolen = 0;
};

/// What is so for as long as it looks (/proc; proc_pid_stat(5), proc_stat(5)).
Neighbours neighbours(std::chrono::milliseconds look);

}  // namespace attune::placement
