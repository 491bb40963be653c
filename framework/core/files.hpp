// Memory-mapped files, and atomic writes.
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

/// A file mapped copy-on-write: reads use the page cache, and writes only change this process's
/// copy. Tensors over it hold the shared_ptr and thereby the mapping. It is mapped on the first
/// data() call, so reading only a header takes no address space for the rest.
class MappedFile {
 public:
  /// Error if the file cannot be opened.
  static std::shared_ptr<MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  /// Null for an empty file. Error if the file cannot be mapped.
  std::byte* data() const;
  /// Reads `count` bytes at `offset`, within the file, without mapping it. Error if reading fails.
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

/// Error if the file cannot be read.
std::string read_text(const std::filesystem::path& path);
/// The same for text files written by people on any system: removes a byte order mark and converts
/// line ends to \n. Error for UTF-16.
std::string read_lines(const std::filesystem::path& path);
/// Removes a byte order mark and converts CR LF and CR to LF.
std::string with_line_feeds(std::string text);

/// Atomic write: write(temporary path), fsync and rename. The file or folder is either complete or
/// as before (empty, for a folder). Creates parent folders.
void write_atomically(const std::filesystem::path& path,
                      const std::function<void(const std::filesystem::path&)>& write);
/// The last step of write_atomically(): renames a complete, synced file or folder; the new name is
/// durable on return.
void move_into_place(const std::filesystem::path& from, const std::filesystem::path& to);
/// Path for a new folder: absolute and without a trailing slash. Error if something other than an
/// empty folder exists there.
std::filesystem::path place_of_new_folder(const std::filesystem::path& folder);
void write_text(const std::filesystem::path& path, std::string_view text);

/// Writes a new file, durable on return. Error if it cannot be written.
void write_bytes(const std::filesystem::path& path, std::span<const std::byte> bytes);

/// fsync of a file or folder. Fault if it fails.
void sync_to_disk(const std::filesystem::path& path);

/// "1.5 GiB"
std::string human_bytes(double bytes);
/// One sentence with path, reason and remedy, for an error that std::filesystem reports.
std::string sentence_of(const std::filesystem::filesystem_error& error);

}  // namespace attune
