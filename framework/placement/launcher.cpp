#include "placement/launcher.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

namespace attune::placement {
namespace {

/// A process as /proc describes it.
struct Process {
  std::string name;
  pid_t parent = 0;
};

Process process(pid_t id) {
  std::ifstream status("/proc/" + std::to_string(id) + "/status");
  Process found;
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Name:\t")) found.name = line.substr(6);
    if (line.starts_with("PPid:\t")) found.parent = std::atoi(line.c_str() + 6);
  }
  return found;
}

bool is_launcher(const std::string& name) {
  constexpr const char* names[] = {"mpirun", "mpiexec", "orterun", "orted"};
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

/// Options that only say on which nodes ranks are, not on which cores.
bool maps_by_node(const std::string& policy) {
  return policy.empty() || policy == "slot" || policy == "node" ||
         (policy.starts_with("ppr:") && policy.ends_with(":node"));
}

}  // namespace

bool bound_unasked(const Variables& variable) {
  if (variable("OMPI_MCA_orte_bound_at_launch") != "1") return false;
  for (const char* asked :
       {"OMPI_MCA_hwloc_base_binding_policy", "OMPI_MCA_rmaps_base_cpus_per_rank",
        "OMPI_MCA_orte_rankfile", "OMPI_MCA_hwloc_base_cpu_set", "OMPI_MCA_hwloc_base_cpu_list"})
    if (!variable(asked).empty()) return false;
  return maps_by_node(variable("OMPI_MCA_rmaps_base_mapping_policy"));
}

Processors processors_of_launcher() {
  auto id = ::getppid();
  while (id > 1) {
    const auto above = process(id);
    if (is_launcher(above.name)) return allowed_processors(id);
    id = above.parent;
  }
  return {};
}

bool is_default_binding(const Topology& topology, const Processors& mine,
                        const Processors& launcher, int ranks) {
  if (!std::includes(launcher.begin(), launcher.end(), mine.begin(), mine.end())) return false;
  return ranks <= 2 ? topology.cores(mine).size() == 1 : topology.is_packages(mine, launcher);
}

}  // namespace attune::placement
