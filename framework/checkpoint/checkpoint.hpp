// Checkpoints, format version 1 (docs/design/0003-checkpoint-format.md): there whole and verified, or not there at all.
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

namespace attune {

/// All that a run needs to go on. In data parallelism it is the same on every rank.
struct Snapshot {
  std::vector<std::pair<std::string, at::Tensor>> tensors;  // any shape; any dtype the HDF5 layer stores, bfloat16 among them
  std::map<std::string, std::string> texts;                 // any bytes
  std::map<std::string, std::int64_t> numbers;
};

/// Writes folder/step-000025/ (folder is a run's "checkpoints") and replaces one of the same step. Rank 0 writes; when it returns, the
/// checkpoint is on the disk, whole. What an interrupted save left behind is removed. Error when it cannot be written. Collective.
void save_checkpoint(const std::filesystem::path& folder, std::int64_t step, const Snapshot& snapshot, const Comm& comm);

/// path: folder/step-000025. Rank 0 reads and every rank receives. Error, before anything is allocated, when it is not whole, its size or
/// sha256 is not what was saved, or it is of another format. Collective.
Snapshot load_checkpoint(const std::filesystem::path& path, const Comm& comm);

/// The newest whole one, verified. Each newer one that is damaged or only half there is named with the reason in warnings (default:
/// std::cerr; on rank 0) and passed over. Absent when there is none, or no folder. Collective.
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& folder, const Comm& comm);
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& folder, const Comm& comm, std::ostream& warnings);

/// Removes all but the newest `keep` (1 or more) that were saved to the end. Collective.
void prune_checkpoints(const std::filesystem::path& folder, std::int64_t keep, const Comm& comm);

}  // namespace attune
