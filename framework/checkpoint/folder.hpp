// The folder of a run's checkpoints: names, the marker that makes one whole, links, what is
// removed.
#pragma once
#include <attune/comm.hpp>

#include <functional>
#include <string>
#include <vector>

#include "checkpoint/state_file.hpp"

namespace attune::checkpoint {

// step-000025
std::filesystem::path folder_of(const std::filesystem::path& checkpoints, std::int64_t step);
// state-0000-00.h5
std::string part_name(int rank, int number);

/// A fresh temporary folder for the checkpoint; what interrupted saves left behind is removed.
std::filesystem::path make_temporary(const std::filesystem::path& checkpoints, std::int64_t step);
/// Marker last, then the name; on the disk when it returns. One of that step that is there and
/// whole stays as it is (Fault); a damaged one is moved aside.
void publish(const std::filesystem::path& temporary, const std::filesystem::path& checkpoint,
             const std::vector<Part>& parts);
/// The parts, each verified, of a whole checkpoint; Error with what is wrong otherwise.
std::vector<Part> check_whole(const std::filesystem::path& checkpoint);
/// Error when the part is not what the marker says.
void check_part(const std::filesystem::path& checkpoint, const Part& part);

/// A link beside the checkpoints, replaced at once; a file system without links does without.
void link_to(const std::filesystem::path& checkpoint, const char* name);

/// The work on rank 0; what the file system refuses (no space, no permission) becomes an Error that
/// says what to do. Collective.
void on_root_with_files(const Comm& comm, const std::function<void()>& work);
/// The same for work on this rank.
void with_files(const std::function<void()>& work);

}  // namespace attune::checkpoint
