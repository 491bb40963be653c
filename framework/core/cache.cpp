#include "core/cache.hpp"

#include <attune/error.hpp>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <utility>

#include "core/files.hpp"
#include "core/hash.hpp"

namespace attune {
namespace fs = std::filesystem;
namespace {

/// What tells a file from another, and from itself at another time. Empty where it changed just
/// now.
std::string identity_of(const fs::path& path, const MappedFile& file) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return "";
  // The time of change, which a copy with its old time of writing cannot set back.
  if (std::time(nullptr) - std::max(status.st_mtim.tv_sec, status.st_ctim.tv_sec) < 2) return "";
  constexpr std::size_t head_bytes = 1 << 20;
  const auto head = sha256(file.read(0, std::min(file.size(), head_bytes)));
  return fmt::format("{}\n{}\n{}.{:09}\n{}.{:09}\n{}\n", fs::canonical(path).string(),
                     status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec,
                     status.st_ctim.tv_sec, status.st_ctim.tv_nsec, head);
}

bool is_sha256(const std::string& text) {
  constexpr std::size_t digits = 64;
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

std::optional<fs::path> cache_folder() {
  const char* base = std::getenv("XDG_CACHE_HOME");
  if (base && *base) return fs::path(base) / "attune";
  const char* home = std::getenv("HOME");
  if (home && *home) return fs::path(home) / ".cache" / "attune";
  return std::nullopt;
}

std::optional<std::string> read_cached(const std::string& name) {
  const auto folder = cache_folder();
  std::error_code ignored;
  if (!folder || !fs::is_regular_file(*folder / name, ignored)) return std::nullopt;
  try {
    return read_text(*folder / name);
  } catch (const Error&) {
    return std::nullopt;
  }
}

void keep_cached(const std::string& name, std::string_view text) {
  const auto folder = cache_folder();
  if (!folder) return;
  try {
    write_text(*folder / name, text);
  } catch (const std::exception&) {
    // A cache that cannot be written is none.
  }
}

std::string cached_sha256_of_file(const fs::path& path) {
  const auto file = MappedFile::open(path);
  const auto identity = identity_of(path, *file);
  if (identity.empty()) return sha256_of_file(path);
  const auto name = "sha256/" + sha256(identity);
  if (auto known = read_cached(name); known && is_sha256(*known)) return *known;
  auto computed = sha256_of_file(path);
  keep_cached(name, computed);
  return computed;
}

std::optional<CacheLock> CacheLock::try_take(const std::string& name) {
  const auto folder = cache_folder();
  if (!folder) return CacheLock(-1);
  const auto path = *folder / (name + ".lock");
  std::error_code ignored;
  fs::create_directories(path.parent_path(), ignored);
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor < 0) return CacheLock(-1);
  if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) return CacheLock(descriptor);
  const bool is_held = errno == EWOULDBLOCK;
  ::close(descriptor);
  return is_held ? std::nullopt : std::optional(CacheLock(-1));
}

CacheLock::CacheLock(CacheLock&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {}

CacheLock& CacheLock::operator=(CacheLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

CacheLock::~CacheLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace attune
