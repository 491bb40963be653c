// The cores of a machine and the processors (hardware threads) of each, as hwloc sees them.
#pragma once
#include <memory>
#include <string>
#include <vector>

struct hwloc_topology;

namespace attune::placement {

/// Processors by the operating system's numbers, ascending.
using Processors = std::vector<int>;

class Topology {
 public:
  /// Of this machine, as far as this process's cgroup lets it be used.
  static Topology here();
  /// As hwloc's synthetic descriptions say, such as "pack:2 core:4 pu:2".
  static Topology of(const std::string& description);

  /// The cores that these processors belong to, by hwloc's numbers: neighbours share caches and
  /// memory.
  std::vector<int> cores(const Processors& processors) const;
  int all_cores() const;
  /// Whether `mine` is all that `of` has of one or more whole sockets.
  bool is_packages(const Processors& mine, const Processors& of) const;

  /// One share of the processors for each rank of the node, as even as can be: whole cores, of one
  /// NUMA domain where that is possible. Where there are fewer cores than ranks all ranks share all
  /// of them.
  std::vector<Processors> shares(const Processors& processors, int ranks) const;

 private:
  explicit Topology(hwloc_topology* loaded);
  std::shared_ptr<hwloc_topology> loaded_;
};

}  // namespace attune::placement
