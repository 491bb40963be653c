// Writes a run's checkpoints, optionally in the background. Every rank writes its share of the
// state to a file of its own.
#pragma once
#include <filesystem>
#include <future>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/folder.hpp"
#include "device/stream.hpp"

namespace attune {

/// Bytes of the file in which a rank writes a part of its share: at most, of a share of so many
/// bytes whose largest tensor has so many. It is made in memory.
std::size_t most_of_part(std::size_t share, std::size_t largest);

/// begin() copies this rank's share to host memory and writes it in a background thread. publish()
/// waits for all ranks, writes the marker and renames the checkpoint. Between the two calls,
/// training may modify the saved tensors. Only one checkpoint may be in flight.
class CheckpointWriter {
 public:
  CheckpointWriter(std::filesystem::path folder, Comm world);
  ~CheckpointWriter();

  /// Starts a checkpoint. staged = false: writes synchronously without a copy. Error if the folder
  /// cannot be created. Collective.
  void begin(std::int64_t step, const Snapshot& snapshot, bool staged);
  bool in_flight() const { return parts_.valid(); }
  /// Whether this rank's share is written or has failed. Does not block.
  bool part_is_done() const;
  /// Completes the checkpoint and returns its path; also links it as "latest" (and "best"). Error,
  /// the same on every rank, if a share could not be written; then the checkpoint is removed and
  /// older ones are unchanged. Collective.
  std::filesystem::path publish(bool best);

 private:
  /// A copy on the host, which is there when `side` is done.
  Snapshot stage(const Snapshot& share, const device::SideStream& side);

  std::filesystem::path folder_;
  std::filesystem::path temporary_;
  Comm comm_;
  std::int64_t step_ = 0;
  // reused by later checkpoints: allocating new memory costs more than the copy
  std::vector<at::Tensor> buffers_;
  std::future<std::vector<checkpoint::Part>> parts_;
};

}  // namespace attune
