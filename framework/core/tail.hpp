// The end of a growing file, such as a log.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace attune {

/// The last bytes of a file; may begin within a line.
struct Tail {
  std::string text;
  std::uint64_t begin = 0;  // offset of the text in the file

  bool is_whole_file() const { return begin == 0; }
};

/// Reads at most the last `bytes`. Empty if the file does not exist. Error if it exists and cannot
/// be read.
Tail read_tail(const std::filesystem::path& path, std::uint64_t bytes);

/// The last `count` non-empty lines; none if the file cannot be read.
std::vector<std::string> last_lines(const std::filesystem::path& path, std::size_t count);

}  // namespace attune
