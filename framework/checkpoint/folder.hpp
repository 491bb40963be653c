// Layout of a run's checkpoint folder: names, the marker of a complete checkpoint, links, and
// removal.
#pragma once
#include <attune/comm.hpp>

#include <functional>
#include <string>
#include <vector>

#include "checkpoint/state_file.hpp"

namespace attune::checkpoint {

// "step-000025"
std::filesystem::path folder_of(const std::filesystem::path& checkpoints, std::int64_t step);
// "state-0000-00.h5"
std::string part_name(int rank, int number);

/// Creates a temporary folder for a checkpoint, and removes those of interrupted saves.
std::filesystem::path make_temporary(const std::filesystem::path& checkpoints, std::int64_t step);
/// Writes the marker, then renames the folder to its final name; durable on return. Fault if a
/// complete checkpoint of that step exists; a damaged one is replaced.
void publish(const std::filesystem::path& temporary, const std::filesystem::path& checkpoint,
             const std::vector<Part>& parts);
/// The parts that a complete checkpoint consists of. Error if it is incomplete or has another
/// format.
std::vector<Part> read_marker(const std::filesystem::path& checkpoint);
/// Verifies a checkpoint and returns its parts. Error if it is incomplete; it states the problem.
std::vector<Part> check_whole(const std::filesystem::path& checkpoint);
/// Error if the part differs from its entry in the marker.
void check_part(const std::filesystem::path& checkpoint, const Part& part);

/// Atomically replaces a link beside the checkpoints. Skipped on file systems without links.
void link_to(const std::filesystem::path& checkpoint, const char* name);

/// Runs `work` on rank 0. File system failures (no space, no permission) become an Error with
/// advice. Collective.
void on_root_with_files(const Comm& comm, const std::function<void()>& work);
/// The same on this rank alone.
void with_files(const std::function<void()>& work);

}  // namespace attune::checkpoint
