// One part of a checkpoint: the state of some tensors, texts and numbers in an HDF5 file.
#pragma once
#include <filesystem>

#include "checkpoint/checkpoint.hpp"

namespace attune::checkpoint {

inline constexpr const char* format_name = "attune-checkpoint";
inline constexpr std::int64_t format_version = 2;

/// A new file, handed to the operating system whole. Error when it cannot be written.
void write_state(const std::filesystem::path& path, std::int64_t step, const Snapshot& snapshot);
/// Error, before anything is allocated, when the file is not such a part or claims more than it holds.
Snapshot read_state(const std::filesystem::path& path);

}  // namespace attune::checkpoint
