// A part of a checkpoint: tensors, texts and numbers in one HDF5 file.
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "hdf5/hdf5.hpp"

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

/// A part that is read piece by piece.
class StateFile {
 public:
  /// Error if the file is not a valid part or declares more data than it contains; checked before
  /// anything is allocated.
  explicit StateFile(const std::filesystem::path& path);

  /// Its tensors and pieces of tensors, in the order they were written, on the meta device.
  const std::vector<parallel::Shard>& pieces() const { return pieces_; }
  /// The values of pieces()[index].
  at::Tensor read(std::size_t index) const { return tensors_[index].read(); }
  std::int64_t step() const { return step_; }
  const std::map<std::string, std::string>& texts() const { return texts_; }
  const std::map<std::string, std::int64_t>& numbers() const { return numbers_; }

 private:
  std::int64_t step_ = 0;
  std::vector<parallel::Shard> pieces_;
  std::vector<hdf5::Dataset> tensors_;
  std::map<std::string, std::string> texts_;
  std::map<std::string, std::int64_t> numbers_;
};

}  // namespace attune::checkpoint
