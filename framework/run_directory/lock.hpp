// Lock that restricts a run directory to one run at a time. It is a small file that identifies its
// holder. It requires only link(2), which is also atomic on NFS and Lustre. Stale locks of killed
// runs are recognised.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>

namespace attune::run_directory {

/// The holder of a lock.
struct Holder {
  std::string host;
  std::string machine;  // boot id and pid namespace, within which a pid is unique
  std::int64_t pid = 0;
  std::string started;  // process start in kernel clock ticks, because pids are reused
  std::string job;      // Slurm job id, 123 or 123_4; empty outside a job
  std::string since;

  static Holder this_process();
  static Holder parse(const std::string& text);
  std::string text() const;
  /// "job 12 (on n1, process 345)" or "process 345 on laptop"
  std::string name() const;
};

enum class Life { gone, alive, unknown };

/// Whether job "12" or "12_3" is pending or running; absent if that is unknown. Implemented in
/// slurm/queue.hpp.
using AskJob = std::function<std::optional<bool>(const std::string& job)>;

/// Whether the holder is alive, as seen from `me`: by its process on the same machine, by its job
/// otherwise.
Life life_of(const Holder& holder, const Holder& me, const AskJob& is_live);

class RunLock {
 public:
  /// Takes the lock, and creates the directory if necessary. Error naming the holder if it is alive
  /// or its state is unknown.
  static RunLock take(const std::filesystem::path& directory, const AskJob& is_live);
  ~RunLock();
  RunLock(RunLock&& other) noexcept
      : file_(std::exchange(other.file_, {})), text_(std::move(other.text_)) {}
  RunLock& operator=(RunLock&&) = delete;

  /// Whether the lock file still exists and is this holder's. False if the directory was removed,
  /// or removed and taken by another run. Read failures of other kinds count as held.
  bool is_held() const;

 private:
  RunLock(std::filesystem::path file, std::string text)
      : file_(std::move(file)), text_(std::move(text)) {}
  std::filesystem::path file_;
  std::string text_;
};

/// The current holder of the directory, alive or dead; absent if there is none.
std::optional<Holder> holder_of(const std::filesystem::path& directory);

/// Error if a living holder has the directory.
void refuse_live_holder(const std::filesystem::path& directory, const AskJob& is_live);

/// Whether this is the name of a lock file or of a temporary lock file.
bool is_of_lock(const std::string& name);

}  // namespace attune::run_directory
