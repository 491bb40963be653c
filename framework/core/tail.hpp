// The end of a file that grows: a log.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace attune {

/// The last bytes of a file, which may begin within a line.
struct Tail {
  std::string text;
  std::uint64_t begin = 0;  // where in the file the text begins

  bool is_whole_file() const { return begin == 0; }
};

/// At most `bytes` of its end. Error when the file is there and cannot be read; empty when it is
/// not there.
Tail read_tail(const std::filesystem::path& path, std::uint64_t bytes);

/// The last `count` lines that are in those bytes, without empty ones; none of a file that cannot
/// be read.
std::vector<std::string> last_lines(const std::filesystem::path& path, std::size_t count);

}  // namespace attune
