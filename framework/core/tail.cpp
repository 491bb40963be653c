#include "core/tail.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "core/lines.hpp"

namespace attune {
namespace fs = std::filesystem;

Tail read_tail(const fs::path& path, std::uint64_t bytes) {
  if (!fs::exists(path)) return {};
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file || fs::is_directory(path)) {
    const auto why = fs::is_directory(path) ? "it is a folder" : std::strerror(errno);
    fail("{} cannot be read ({})", path.filename().string(), why);
  }
  const auto size = static_cast<std::uint64_t>(std::max<std::streamoff>(0, file.tellg()));
  Tail tail;
  tail.begin = size > bytes ? size - bytes : 0;
  tail.text.resize(size - tail.begin);
  file.seekg(static_cast<std::streamoff>(tail.begin));
  file.read(tail.text.data(), static_cast<std::streamsize>(tail.text.size()));
  // it may have become shorter meanwhile
  tail.text.resize(static_cast<std::size_t>(file.gcount()));
  return tail;
}

std::vector<std::string> last_lines(const fs::path& path, std::size_t count) {
  constexpr std::uint64_t tail_bytes = 16 << 10;
  std::vector<std::string> lines;
  try {
    lines = lines_of(read_tail(path, tail_bytes).text);
  } catch (const std::exception&) {
    return {};
  }
  if (lines.size() > count)
    lines.erase(lines.begin(), lines.end() - static_cast<std::ptrdiff_t>(count));
  return lines;
}

}  // namespace attune
