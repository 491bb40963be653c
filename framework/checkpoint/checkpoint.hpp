// Finding and pruning of checkpoints, format version 2 (docs/design/0003-checkpoint-format.md). A
// checkpoint is either complete and verified, or it does not exist. checkpoint/writer.hpp writes
// them, and checkpoint/stored_state.hpp reads them.
#pragma once
#include <ATen/core/Tensor.h>
#include <attune/comm.hpp>

#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "parallel/shard.hpp"

namespace attune {

/// Everything a run needs to resume. Tensors may have any shape, and any dtype that the HDF5 layer
/// supports, including bfloat16.
struct Snapshot {
  // whole tensors that are identical on every rank; the ranks divide them for writing
  std::vector<parallel::Shard> tensors = {};
  std::map<std::string, std::string> texts = {};  // arbitrary bytes; the same on every rank
  std::map<std::string, std::int64_t> numbers = {};
  // shards or whole tensors that only this rank, or only some ranks, hold
  std::vector<parallel::Shard> own = {};

  std::size_t bytes() const;  // of `tensors` and `own`
};

/// Finds and verifies the newest complete checkpoint. Newer damaged or incomplete ones are skipped,
/// with a warning on rank 0 that states the reason (default: std::cerr). Absent if there is none,
/// or no folder. Collective.
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& folder,
                                                       const Comm& comm);
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& folder,
                                                       const Comm& comm, std::ostream& warnings);

/// Finds a checkpoint of a run by name: "latest" (newest complete one), "best", or a step number.
/// Error if it does not exist. Collective.
std::filesystem::path named_checkpoint(const std::filesystem::path& folder, const std::string& name,
                                       const Comm& comm);

/// Removes all checkpoints except the newest `keep` (at least 1) complete ones and the best.
/// Collective.
void prune_checkpoints(const std::filesystem::path& folder, std::int64_t keep, const Comm& comm);

}  // namespace attune
