// metrics.jsonl of a run directory, as Attune writes it: docs/run-directory.md. The callback
// `jsonl` writes it in every run.
#pragma once
#include <attune/api.hpp>
#include <attune/callback.hpp>

#include <cstdint>
#include <filesystem>
#include <fstream>

ATTUNE_API_BEGIN
namespace attune {

/// On rank 0 alone.
class MetricsLog {
 public:
  /// Opens the log of a run directory to append. What is behind the first `keep` bytes goes: an
  /// interrupted run wrote it after the checkpoint that is resumed from, and those steps are done
  /// again. Error when it cannot be written, or is of a newer version.
  MetricsLog(const std::filesystem::path& run_directory, std::uint64_t keep);

  /// One line, which other programs see at once; nothing for step_begin and gradients_ready. Error
  /// when it cannot be written.
  void write(Event event, const Run& run);

  /// Its length: `keep` of a run that is resumed from here.
  std::uint64_t bytes() const { return bytes_; }

 private:
  std::filesystem::path path_;
  std::uint64_t bytes_ = 0;
  std::ofstream file_;
};

}  // namespace attune
ATTUNE_API_END
