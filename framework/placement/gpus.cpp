#include "placement/gpus.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include "core/lines.hpp"

namespace attune::placement {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

/// More than any host has: how far indices go where the host does not say.
constexpr std::size_t unknown_count = 64;

std::optional<std::size_t> index_of(const std::string& text) {
  std::size_t index = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), index);
  if (read.ec != std::errc{}) return std::nullopt;
  return index;  // what follows the digits is ignored, as CUDA does
}

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

/// The GPU that an entry of a list means, if there is one.
std::optional<std::string> named(const std::string& entry, const Names& all) {
  if (entry.starts_with("GPU-") || entry.starts_with("MIG-")) return entry;
  const auto index = index_of(entry);
  if (!index || *index >= all.size()) return std::nullopt;
  return all[*index];
}

/// A list ends at its first invalid entry ("-1", "NoDevFiles"), and means no GPU where one is
/// repeated.
Names listed(const std::string& list, const Names& all) {
  Names names;
  for (const auto& entry : pieces_of(list, ',')) {
    const auto name = named(trimmed(entry), all);
    if (!name) break;
    if (std::ranges::find(names, *name) != names.end()) return {};
    names.push_back(*name);
  }
  return names;
}

Names numbered(std::size_t count) {
  Names names;
  for (std::size_t i = 0; i < count; ++i) names.push_back(std::to_string(i));
  return names;
}

/// Of several GPUs, indices remain indices: CUDA orders GPUs by speed, not by address, and under a
/// cgroup counts those of the task alone.
Names visible_of_nvidia(const OptionalVariables& variable, const Names& host) {
  const auto list = variable("CUDA_VISIBLE_DEVICES");
  if (!list) return host;
  if (host.size() == 1) return listed(*list, host);
  return listed(*list, numbered(host.empty() ? unknown_count : host.size()));
}

/// HIP chooses among the GPUs that ROCr leaves. For HIP, unlike for ROCr, an empty list is none.
Names visible_of_amd(const OptionalVariables& variable, const Names& host) {
  const auto left = variable("ROCR_VISIBLE_DEVICES");
  const auto names = left ? listed(*left, host) : host;
  for (const char* list : {"HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"})
    if (const auto chosen = variable(list).value_or(""); !chosen.empty())
      return listed(chosen, names);
  return names;
}

Names nvidia_gpus(const fs::path& root) {
  Names addresses;
  std::error_code none;
  for (const auto& gpu : fs::directory_iterator(root / "proc/driver/nvidia/gpus", none))
    addresses.push_back(gpu.path().filename().string());
  std::ranges::sort(addresses);
  return addresses;
}

/// A processor without a GPU has no SIMD units. Nodes that the cgroup forbids cannot be read.
bool has_gpu(const fs::path& node) {
  std::ifstream properties(node / "properties");
  std::string key;
  for (double value = 0; properties >> key >> value;)
    if (key == "simd_count") return value > 0;
  return false;
}

Names amd_gpus(const fs::path& root) {
  std::map<std::size_t, std::string> nodes;
  std::error_code none;
  for (const auto& node : fs::directory_iterator(root / "sys/class/kfd/kfd/topology/nodes", none)) {
    const auto number = index_of(node.path().filename().string());
    if (number && has_gpu(node.path())) nodes[*number] = "node " + std::to_string(*number);
  }
  Names names;
  for (const auto& [number, name] : nodes) names.push_back(name);
  return names;
}

}  // namespace

std::optional<std::string> optional_variable(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  if (value == nullptr) return std::nullopt;
  return value;
}

HostGpus HostGpus::of(const std::string& root) { return {nvidia_gpus(root), amd_gpus(root)}; }

std::vector<std::string> visible_gpus(const OptionalVariables& variable, const HostGpus& host) {
  // Slurm may set the variables of both makers on any node.
  const bool is_amd = host.nvidia.empty() && !host.amd.empty();
  return is_amd ? visible_of_amd(variable, host.amd) : visible_of_nvidia(variable, host.nvidia);
}

}  // namespace attune::placement
