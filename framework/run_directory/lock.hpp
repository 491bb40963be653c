// One run directory, one run at a time. The lock is a small file that says who holds it; it needs
// nothing of the file system but link(2), which is atomic on NFS and Lustre as well, and one that a
// killed run left behind is recognised.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>

namespace attune::run_directory {

/// Who holds a lock.
struct Holder {
  std::string host;
  std::string machine;  // boot id and pid namespace: a pid means something within it
  std::int64_t pid = 0;
  std::string started;  // of the process, in the kernel's clock ticks: pids are used again
  std::string job;      // Slurm's, as 123 or 123_4; empty outside
  std::string since;

  static Holder this_process();
  static Holder parse(const std::string& text);
  std::string text() const;
  /// "job 12 (on n1, process 345)" or "process 345 on laptop"
  std::string name() const;
};

enum class Life { gone, alive, unknown };

/// Whether a scheduler's job "12" or "12_3" still waits or runs; no value when that cannot be told.
/// slurm/queue.hpp has the one that asks.
using AskJob = std::function<std::optional<bool>(const std::string& job)>;

/// Whether the holder still lives, as seen from `me`: by its process on the same machine, by its
/// job elsewhere.
Life life_of(const Holder& holder, const Holder& me, const AskJob& is_live);

class RunLock {
 public:
  /// Error naming the holder when one lives, or when it cannot be told whether it does. Makes the
  /// directory.
  static RunLock take(const std::filesystem::path& directory, const AskJob& is_live);
  ~RunLock();
  RunLock(RunLock&& other) noexcept
      : file_(std::exchange(other.file_, {})), text_(std::move(other.text_)) {}
  RunLock& operator=(RunLock&&) = delete;

  /// Whether its file is still there and the holder's own: false when the directory was removed, or
  /// removed and taken by another. A file that cannot be read for another reason is taken to be
  /// there.
  bool is_held() const;

 private:
  RunLock(std::filesystem::path file, std::string text)
      : file_(std::move(file)), text_(std::move(text)) {}
  std::filesystem::path file_;
  std::string text_;
};

/// Who holds the directory now, dead or alive; nobody: no value.
std::optional<Holder> holder_of(const std::filesystem::path& directory);

/// Error when somebody who lives holds the directory.
void refuse_live_holder(const std::filesystem::path& directory, const AskJob& is_live);

/// Whether a file of that name is a lock, or one in the making.
bool is_of_lock(const std::string& name);

}  // namespace attune::run_directory
