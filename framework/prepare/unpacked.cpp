#include "prepare/unpacked.hpp"

#include <attune/error.hpp>

#include <algorithm>

namespace attune {
namespace {

constexpr std::size_t at_once = 1 << 20;  // zlib counts in int

}  // namespace

UnpackedFile::UnpackedFile(const std::filesystem::path& path) : path_(path) {
  if (!std::filesystem::is_regular_file(path)) fail("{}: there is no such file", path.string());
  file_.reset(gzopen(path.c_str(), "rb"));
  if (!file_)
    fail("{}: cannot be read; check that it is a file with read permission", path.string());
  gzbuffer(file_.get(), 1 << 18);
}

std::size_t UnpackedFile::read(char* to, std::size_t count) {
  std::size_t done = 0;
  while (done < count) {
    const int got =
        gzread(file_.get(), to + done, static_cast<unsigned>(std::min(count - done, at_once)));
    int code = Z_OK;
    const std::string reason = gzerror(file_.get(), &code);
    if (code != Z_OK && code != Z_STREAM_END)
      fail("{}: cannot be decompressed ({}); fetch it again", path_.string(), reason);
    if (got <= 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

void UnpackedFile::seek(std::uint64_t position) {
  plain();  // until zlib has looked at its first bytes it reads all that lies before
  if (gzseek64(file_.get(), static_cast<z_off64_t>(position), SEEK_SET) < 0)
    fail("{}: cannot be read at byte {}; fetch it again", path_.string(), position);
}

std::string UnpackedFile::range(std::uint64_t begin, std::uint64_t end) {
  seek(begin);
  std::string text(end - begin, '\0');
  if (read(text.data(), text.size()) != text.size())
    fail("{}: was truncated while it was read; do not change sources while prepare runs",
         path_.string());
  return text;
}

std::string read_unpacked(const std::filesystem::path& path) {
  UnpackedFile file(path);
  std::string text;
  for (std::size_t got = at_once; got == at_once;) {
    const auto size = text.size();
    text.resize(size + at_once);
    got = file.read(text.data() + size, at_once);
    text.resize(size + got);
  }
  return text;
}

}  // namespace attune
