// Per-user cache of results that can be recomputed at any time.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace attune {

/// $XDG_CACHE_HOME/attune, or ~/.cache/attune. Absent if neither variable is set.
std::optional<std::filesystem::path> cache_folder();

/// The text cached under a name such as "sha256/<key>"; absent if there is none.
std::optional<std::string> read_cached(const std::string& name);
/// Caches a text. Silently does nothing if that is impossible (no home, full disk, no permission).
void keep_cached(const std::string& name, std::string_view text);

/// SHA-256 of a file. It is recomputed if path, size, modification or change time, or the first MiB
/// differ. The hash of a file that changed in the last two seconds is not cached, because the file
/// could change again within the clock's resolution.
std::string cached_sha256_of_file(const std::filesystem::path& path);

/// Lock for a computation that one process performs while others wait, on all machines that share
/// the cache.
class CacheLock {
 public:
  /// Absent while another process holds the lock. Always succeeds if there is no cache or the file
  /// system does not support locks.
  static std::optional<CacheLock> try_take(const std::string& name);
  /// An empty lock, for a process that stops waiting.
  static CacheLock of_nothing() { return CacheLock(-1); }
  CacheLock(CacheLock&& other) noexcept;
  CacheLock& operator=(CacheLock&& other) noexcept;
  /// Releases the lock. The end of the process releases it as well.
  ~CacheLock();

 private:
  explicit CacheLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

}  // namespace attune
