// Checkpoints on the disk, format version 2 (docs/design/0003-checkpoint-format.md): there whole
// and verified, or not there at all. checkpoint/writer.hpp writes them.
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

/// All that a run needs to go on. Tensors have any shape, and any dtype the HDF5 layer stores,
/// bfloat16 among them.
struct Snapshot {
  // whole ones that are the same on every rank, which the ranks share out among them for writing
  std::vector<parallel::Shard> tensors = {};
  std::map<std::string, std::string> texts = {};  // any bytes; the same on every rank
  std::map<std::string, std::int64_t> numbers = {};
  // what this rank alone holds, or some ranks: pieces, or whole tensors
  std::vector<parallel::Shard> own = {};

  std::size_t bytes() const;  // of the tensors and of its own
};

/// path: folder/step-000025. Each part is read by one rank, and every rank receives all; pieces are
/// put together, and so any number of ranks may resume. Error, before anything is allocated, when
/// it is not whole, a size or sha256 is not what was saved, or it is of another format.
/// Collective.
Snapshot load_checkpoint(const std::filesystem::path& path, const Comm& comm);

/// The newest whole one, verified. Each newer one that is damaged or only half there is named with
/// the reason in warnings (default: std::cerr; on rank 0) and passed over. Absent when there is
/// none, or no folder. Collective.
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& folder,
                                                       const Comm& comm);
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& folder,
                                                       const Comm& comm, std::ostream& warnings);

/// The one of that name in a run's checkpoints: "latest" (the newest whole one), "best", or a
/// step's number. Error when it is not there. Collective.
std::filesystem::path named_checkpoint(const std::filesystem::path& folder, const std::string& name,
                                       const Comm& comm);

/// Removes all but the newest `keep` (1 or more) that were saved to the end, and the best.
/// Collective.
void prune_checkpoints(const std::filesystem::path& folder, std::int64_t keep, const Comm& comm);

}  // namespace attune
