// Staging: copies data and model to each node's local disk if the site requests it. Files are read
// once from the shared file system, sequentially, and broadcast to the nodes.
#pragma once
#include <attune/mesh.hpp>

#include <filesystem>
#include <string>
#include <vector>

#include "config/run_config.hpp"

namespace attune::slurm {

class Staging {
 public:
  /// Copies what ATTUNE_STAGE lists ("data,model") into ATTUNE_SCRATCH; does nothing if they are
  /// not set. Error if a node's scratch is not writable or too full. Collective.
  Staging(const config::RunConfig& config, const Mesh& mesh);
  /// Removes the copies.
  ~Staging() { remove(); }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// The run configuration with the paths of the copies.
  const config::RunConfig& config() const { return config_; }

 private:
  /// Copies a file and returns the path of the copy on this node.
  std::string copy(const std::filesystem::path& from, const std::string& name,
                   const Comm& world) const;
  void remove();

  config::RunConfig config_;
  std::filesystem::path folder_;  // on this node
  bool mine_ = false;             // created by this rank
};

}  // namespace attune::slurm
