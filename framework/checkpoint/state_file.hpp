// A part of a checkpoint: tensors, texts and numbers in one HDF5 file.
#pragma once
#include <filesystem>
#include <string>

#include "checkpoint/checkpoint.hpp"

namespace attune::checkpoint {

inline constexpr const char* format_name = "attune-checkpoint";
inline constexpr std::int64_t format_version = 2;

/// Entry of a part in the marker.
struct Part {
  std::string file;  // file name
  std::uint64_t bytes = 0;
  std::string sha256;
};

/// Writes snapshot.own, its texts and its numbers to a new file, durable on return. The file is
/// first built in memory, because HDF5 aborts the process if it cannot close a file on a full disk.
/// Error if the file cannot be written.
Part write_state(const std::filesystem::path& path, std::int64_t step, const Snapshot& snapshot);
/// Reads a part. Error if the file is not a valid part or declares more data than it contains;
/// checked before anything is allocated.
Snapshot read_state(const std::filesystem::path& path);

}  // namespace attune::checkpoint
