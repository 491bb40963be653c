// A file's bytes, unpacked when it is gzipped.
#pragma once
#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace attune {

class UnpackedFile {
 public:
  /// Error when it cannot be opened.
  explicit UnpackedFile(const std::filesystem::path& path);
  /// Up to `count` bytes; fewer only at the end. Error when it cannot be read or unpacked.
  std::size_t read(char* to, std::size_t count);
  /// Forward only, when gzipped.
  void seek(std::uint64_t position);
  /// True when it is read as it stands. Known once something was read.
  bool plain() const { return gzdirect(file_.get()) != 0; }

 private:
  struct Close {
    void operator()(gzFile file) const { gzclose_r(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<gzFile_s, Close> file_;
};

/// Bytes begin .. end - 1.
std::string read_range(const std::filesystem::path& path, std::uint64_t begin, std::uint64_t end);
std::string read_unpacked(const std::filesystem::path& path);

}  // namespace attune
