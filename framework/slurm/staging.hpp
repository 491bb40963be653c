// Data and model copied once per node to the node's own disk, when the site says so: read once from
// the shared file system, in order, and broadcast to the nodes.
#pragma once
#include <attune/mesh.hpp>

#include <filesystem>
#include <string>
#include <vector>

#include "config/run_config.hpp"

namespace attune::slurm {

class Staging {
 public:
  /// Copies what ATTUNE_STAGE names ("data,model") below ATTUNE_SCRATCH; nothing when they are not
  /// set. Collective. Error when a node's scratch cannot be written or is too full.
  Staging(const config::RunConfig& config, const Mesh& mesh);
  /// Removes the copies.
  ~Staging() { remove(); }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// With the paths of the copies.
  const config::RunConfig& config() const { return config_; }

 private:
  /// Where the copy is, on this node.
  std::string copy(const std::filesystem::path& from, const std::string& name,
                   const Comm& world) const;
  void remove();

  config::RunConfig config_;
  std::filesystem::path folder_;  // of this node
  bool mine_ = false;             // this rank made it
};

}  // namespace attune::slurm
