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
  /// Bytes begin .. end - 1. Of a gzipped file all that lies between is unpacked on the way; from
  /// its start, to go back. Error when it ends before.
  std::string range(std::uint64_t begin, std::uint64_t end);
  /// True when it is read as it stands.
  bool plain() const { return gzdirect(file_.get()) != 0; }

 private:
  void seek(std::uint64_t position);
  struct Close {
    void operator()(gzFile file) const { gzclose_r(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<gzFile_s, Close> file_;
};

std::string read_unpacked(const std::filesystem::path& path);

}  // namespace attune
