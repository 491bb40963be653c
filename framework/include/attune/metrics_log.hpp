// Writer of a run directory's metrics.jsonl (format: docs/run-directory.md). The callback `jsonl`
// uses it in every run.
#pragma once
#include <attune/api.hpp>
#include <attune/callback.hpp>

#include <cstdint>
#include <filesystem>
#include <fstream>

ATTUNE_API_BEGIN
namespace attune {

/// Used on rank 0 only.
class MetricsLog {
 public:
  /// Opens the log of a run directory for appending, truncated to the first `keep` bytes. Later
  /// bytes belong to steps after the checkpoint, which a resumed run repeats. Error if the file
  /// cannot be written or has a newer version.
  MetricsLog(const std::filesystem::path& run_directory, std::uint64_t keep);

  /// Appends one line and flushes it. Ignores step_begin and gradients_ready. Error if the file
  /// cannot be written.
  void write(Event event, const Run& run);

  /// Length of the file in bytes. Pass it as `keep` when a run resumes from this point.
  std::uint64_t bytes() const { return bytes_; }

 private:
  std::filesystem::path path_;
  std::uint64_t bytes_ = 0;
  std::ofstream file_;
};

}  // namespace attune
ATTUNE_API_END
