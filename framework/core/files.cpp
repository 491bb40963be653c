#include "core/files.hpp"

#include <attune/error.hpp>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

namespace attune {
namespace fs = std::filesystem;
namespace {

/// A file descriptor that closes itself.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

std::shared_ptr<MappedFile> MappedFile::open(const fs::path& path) {
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  file->descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file->descriptor_ < 0) fail("{}: cannot be opened ({})", path.string(), std::strerror(errno));
  struct stat status{};
  const bool is_known = ::fstat(file->descriptor_, &status) == 0;
  if (!is_known || !S_ISREG(status.st_mode)) fail("{}: is not a file", path.string());
  file->size_ = static_cast<std::size_t>(status.st_size);
  return file;
}

std::byte* MappedFile::data() const {
  std::call_once(mapped_, [&] {
    if (size_ == 0) return;
    void* data =
        ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, descriptor_, 0);
    if (data == MAP_FAILED)
      fail("{}: cannot be mapped into memory ({})", path_.string(), std::strerror(errno));
    data_ = static_cast<std::byte*>(data);
  });
  return data_;
}

std::string MappedFile::read(std::size_t offset, std::size_t count) const {
  ATTUNE_ASSERT(offset <= size_ && count <= size_ - offset, "{} bytes at {} of {}", count, offset,
                size_);
  std::string bytes(count, '\0');
  for (std::size_t done = 0; done < count;) {
    const auto got =
        ::pread(descriptor_, bytes.data() + done, count - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("{}: cannot be read ({})", path_.string(), std::strerror(errno));
    if (got == 0) fail("{}: was truncated while it was read; try again", path_.string());
    done += static_cast<std::size_t>(got);
  }
  return bytes;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(data_, size_);
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (fs::is_directory(path)) fail("{}: is a folder, but a file is needed", path.string());
  if (!file)
    fail("{}: cannot be read ({})", path.string(),
         fs::exists(path) ? "is it a file you may read?" : "there is no such file");
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

std::string with_line_feeds(std::string text) {
  if (text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);
  auto end = text.begin();
  for (auto at = text.begin(); at != text.end(); ++at) {
    const bool ends_line = *at == '\r';
    *end++ = ends_line ? '\n' : *at;
    if (ends_line && at + 1 != text.end() && at[1] == '\n') ++at;
  }
  text.erase(end, text.end());
  return text;
}

std::string read_lines(const fs::path& path) {
  auto text = read_text(path);
  if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff"))
    fail("{}: is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)", path.string());
  return with_line_feeds(std::move(text));
}

void sync_to_disk(const fs::path& path) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0 || ::fsync(file.fd) != 0)
    throw Fault(fmt::format("{}: fsync failed ({})", path.string(), std::strerror(errno)));
}

void write_bytes(const fs::path& path, std::span<const std::byte> bytes) {
  const auto check = [&](bool well) {
    if (!well)
      fail("{}: cannot be written ({}); free space, or check the file system", path.string(),
           std::strerror(errno));
  };
  const Descriptor file{::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)};
  check(file.fd >= 0);
  constexpr std::size_t piece = 64 << 20;
  while (!bytes.empty()) {
    const auto written = ::write(file.fd, bytes.data(), std::min(bytes.size(), piece));
    if (written < 0 && errno == EINTR) continue;
    check(written >= 0);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  check(::fsync(file.fd) == 0);
}

void write_atomically(const fs::path& path, const std::function<void(const fs::path&)>& write) {
  const auto folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  fs::create_directories(folder);
  const auto temporary =
      folder / ("." + path.filename().string() + "." + std::to_string(::getpid()) + ".tmp");
  try {
    write(temporary);
    sync_to_disk(temporary);
    move_into_place(temporary, path);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw;
  }
}

void move_into_place(const fs::path& from, const fs::path& to) {
  fs::rename(from, to);
  sync_to_disk(to.has_parent_path() ? to.parent_path() : ".");
}

fs::path place_of_new_folder(const fs::path& folder) {
  if (fs::exists(folder) && !(fs::is_directory(folder) && fs::is_empty(folder)))
    fail("{}: already exists and is not an empty folder; remove it or choose another",
         folder.string());
  const auto path = fs::absolute(folder).lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

void write_text(const fs::path& path, std::string_view text) {
  write_atomically(path, [&](const fs::path& temporary) {
    write_bytes(temporary, std::as_bytes(std::span(text)));
  });
}

std::string sentence_of(const fs::filesystem_error& error) {
  return fmt::format("{}: {}; free space or correct the permissions, and run again",
                     error.path1().string(), error.code().message());
}

std::string human_bytes(double bytes) {
  static constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  for (; bytes >= 1024 && unit < 4; ++unit) bytes /= 1024;
  return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 1, units[unit]);
}

}  // namespace attune
