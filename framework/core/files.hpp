// Files: mapped for reading, written whole or not at all.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

namespace attune {

/// A file mapped copy-on-write: reading goes through the page cache, writing changes this process's
/// copy alone. Tensors made over it keep the shared_ptr, and with it the mapping. It is mapped when
/// data() is first asked for: who reads a header alone takes no address space for the rest.
class MappedFile {
 public:
  /// Error when it cannot be opened.
  static std::shared_ptr<MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  /// Null for an empty file. Error when it cannot be mapped.
  std::byte* data() const;
  /// `count` bytes from `offset`, which are there, without mapping the file. Error when they cannot
  /// be read.
  std::string read(std::size_t offset, std::size_t count) const;
  std::size_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::size_t size_ = 0;
  mutable std::once_flag mapped_;
  mutable std::byte* data_ = nullptr;
};

/// Error when it cannot be read.
std::string read_text(const std::filesystem::path& path);
/// The same of a text that people write, on any system: without a byte order mark, and its lines
/// end with \n alone. Error for UTF-16.
std::string read_lines(const std::filesystem::path& path);
/// A text without a byte order mark; CR LF and CR become LF.
std::string with_line_feeds(std::string text);

/// write(temporary path), then fsync and rename: the file or folder is there whole, or as it was
/// before (empty, for a folder). Folders above it are made.
void write_atomically(const std::filesystem::path& path,
                      const std::function<void(const std::filesystem::path&)>& write);
/// The end of that: renames what is whole and on the disk; the new name is on the disk as well when
/// it returns.
void move_into_place(const std::filesystem::path& from, const std::filesystem::path& to);
/// Where a folder that is to be new comes to stand: absolute, and without a slash at its end. Error
/// when something other than an empty folder is there.
std::filesystem::path place_of_new_folder(const std::filesystem::path& folder);
void write_text(const std::filesystem::path& path, std::string_view text);

/// A new file, on the disk when it returns. Error when it cannot be written.
void write_bytes(const std::filesystem::path& path, std::span<const std::byte> bytes);

/// fsync of a file or folder; Fault when it fails.
void sync_to_disk(const std::filesystem::path& path);

/// "1.5 GiB"
std::string human_bytes(double bytes);

}  // namespace attune
