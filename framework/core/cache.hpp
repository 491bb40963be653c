// What is computed once for all later runs of a user, and could be computed again at any time.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace attune {

/// $XDG_CACHE_HOME/attune, or ~/.cache/attune. Absent where neither variable is set.
std::optional<std::filesystem::path> cache_folder();

/// The text kept under a name such as "sha256/<key>"; absent when there is none.
std::optional<std::string> read_cached(const std::string& name);
/// Where it cannot be kept (no home, a full disk, nothing may be written there) it is not, and
/// nobody is told.
void keep_cached(const std::string& name, std::string_view text);

/// sha256 of the file, computed when path, size, times of writing and of change, or the first MiB
/// are others than when it was computed last. A file that changed in the last two seconds is not
/// remembered: it could change again within the clock's resolution.
std::string cached_sha256_of_file(const std::filesystem::path& path);

/// What one process of many computes while the others wait for it, on all machines that share the
/// cache.
class CacheLock {
 public:
  /// Null while another process holds the lock of that name. Where the file system has no locks, or
  /// there is no cache, all may hold it.
  static std::optional<CacheLock> try_take(const std::string& name);
  /// Holds nothing: for who waits no longer.
  static CacheLock of_nothing() { return CacheLock(-1); }
  CacheLock(CacheLock&& other) noexcept;
  CacheLock& operator=(CacheLock&& other) noexcept;
  /// The lock ends with the process, too.
  ~CacheLock();

 private:
  explicit CacheLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

}  // namespace attune
