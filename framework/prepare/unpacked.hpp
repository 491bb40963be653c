// A file's bytes, decompressed if it is gzipped.
#pragma once
#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace attune {

class UnpackedFile {
 public:
  /// Error if the file cannot be opened.
  explicit UnpackedFile(const std::filesystem::path& path);
  /// Reads up to `count` bytes; fewer only at the end. Error if reading or decompression fails.
  std::size_t read(char* to, std::size_t count);
  /// Bytes begin .. end - 1. In a gzipped file, decompresses everything up to there; going back
  /// restarts from the beginning. Error if the file is shorter.
  std::string range(std::uint64_t begin, std::uint64_t end);
  /// Whether the file is not compressed.
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
