// One part of a checkpoint: the state of some tensors, texts and numbers in an HDF5 file.
#pragma once
#include <filesystem>
#include <string>

#include "checkpoint/checkpoint.hpp"

namespace attune::checkpoint {

inline constexpr const char* format_name = "attune-checkpoint";
inline constexpr std::int64_t format_version = 2;

/// What the marker notes of a part.
struct Part {
  std::string file;  // its name
  std::uint64_t bytes = 0;
  std::string sha256;
};

/// Of snapshot's own, its texts and its numbers: a new file, on the disk when it returns. It is
/// made in memory first, so that HDF5 never meets a full disk: a file that it cannot close would
/// take the process with it. Error when it cannot be written.
Part write_state(const std::filesystem::path& path, std::int64_t step, const Snapshot& snapshot);
/// Error, before anything is allocated, when the file is not such a part or claims more than it
/// holds.
Snapshot read_state(const std::filesystem::path& path);

}  // namespace attune::checkpoint
