// GPUs that a process may use, without a GPU library: from the environment and the kernel.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace attune::placement {

/// The value of an environment variable; nullopt if it is not set, which for a list of devices is
/// the opposite of an empty one.
using OptionalVariables = std::function<std::optional<std::string>(const std::string&)>;
std::optional<std::string> optional_variable(const std::string& name);

/// GPUs of this host, by names that no two of them share.
struct HostGpus {
  std::vector<std::string> nvidia;  // PCI addresses; empty without NVIDIA's driver
  std::vector<std::string> amd;  // nodes of the kernel's topology, in the order of ROCm's indices

  /// From `root`, the root of the file system: proc/driver/nvidia/gpus, sys/class/kfd.
  static HostGpus of(const std::string& root = "/");
};

/// Names of the GPUs that a process with these variables sees: as they are in the variable (an
/// index, "GPU-...", "MIG-..."), or else those of the host. Sources: CUDA C Programming Guide,
/// "CUDA Environment Variables"; ROCm, "GPU isolation techniques".
std::vector<std::string> visible_gpus(const OptionalVariables& variable, const HostGpus& host);

}  // namespace attune::placement
