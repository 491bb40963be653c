// Cores of a machine and their processors (hardware threads), from hwloc.
#pragma once
#include <memory>
#include <string>
#include <vector>

struct hwloc_topology;

namespace attune::placement {

/// Processors by operating system index, ascending.
using Processors = std::vector<int>;

class Topology {
 public:
  /// This machine, restricted to this process's cgroup.
  static Topology here();
  /// From an hwloc synthetic description such as "pack:2 core:4 pu:2".
  static Topology of(const std::string& description);

  /// Cores of these processors by hwloc index; cores with adjacent indices share caches and memory.
  std::vector<int> cores(const Processors& processors) const;
  int all_cores() const;
  /// Whether `mine` is exactly the part of `of` on one or more whole sockets.
  bool is_packages(const Processors& mine, const Processors& of) const;

  /// Divides the processors into one share for each rank of the node, as evenly as possible: whole
  /// cores, in one NUMA domain if possible. If there are fewer cores than ranks, all ranks share
  /// all cores.
  std::vector<Processors> shares(const Processors& processors, int ranks) const;

 private:
  explicit Topology(hwloc_topology* loaded);
  std::shared_ptr<hwloc_topology> loaded_;
};

}  // namespace attune::placement
