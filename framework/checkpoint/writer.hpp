// Writes a run's checkpoints, behind the training where that is wanted. Every rank writes a share
// of the state to a file of its own.
#pragma once
#include <filesystem>
#include <future>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/folder.hpp"

namespace attune {

/// begin() copies this rank's share to host memory and starts to write it on a thread; publish()
/// waits for every rank's share, sets the marker and gives the checkpoint its name. Between the two
/// the training may change what was saved. One is in flight at a time.
class CheckpointWriter {
 public:
  CheckpointWriter(std::filesystem::path folder, Comm world);
  ~CheckpointWriter();

  /// staged = false: written at once, without a copy. Error when the folder cannot be made.
  /// Collective.
  void begin(std::int64_t step, const Snapshot& snapshot, bool staged);
  bool in_flight() const { return parts_.valid(); }
  /// This rank's share is on the disk, or has failed; nothing is awaited.
  bool part_is_done() const;
  /// The path of the whole checkpoint, also linked as "latest" (and "best"). Error, the same on
  /// every rank, when a share could not be written; nothing of it stays then, and older checkpoints
  /// are as they were. Collective.
  std::filesystem::path publish(bool best);

 private:
  Snapshot stage(const Snapshot& share);

  std::filesystem::path folder_;
  std::filesystem::path temporary_;
  Comm comm_;
  std::int64_t step_ = 0;
  // kept from one checkpoint to the next: fresh memory costs more than the copy
  std::vector<at::Tensor> buffers_;
  std::future<std::vector<checkpoint::Part>> parts_;
};

}  // namespace attune
