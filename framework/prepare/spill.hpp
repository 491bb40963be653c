// Intermediate storage of records between reading and encoding, in files of the working folder, so
// that memory use does not grow with the data.
#pragma once
#include <attune/dataset.hpp>
#include <attune/error.hpp>

#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

namespace attune {

/// A new file, written sequentially. Error if a write fails (disk full).
class OutFile {
 public:
  explicit OutFile(std::filesystem::path path);
  void write(const void* bytes, std::size_t count);
  void write(std::string_view text) { write(text.data(), text.size()); }
  template <class T>
    requires std::is_trivially_copyable_v<T>
  void write(const T& value) {
    write(&value, sizeof value);
  }
  /// Flushes to the operating system and closes.
  void close();
  std::uint64_t size() const { return size_; }

 private:
  void check() const;
  std::filesystem::path path_;
  std::ofstream file_;
  std::uint64_t size_ = 0;
};

/// Elements first .. first + count - 1 of a file of fixed-size elements.
template <class T>
  requires std::is_trivially_copyable_v<T>
std::vector<T> read_elements(const std::filesystem::path& path, std::uint64_t first,
                             std::uint64_t count) {
  std::vector<T> elements(count);
  std::ifstream file(path, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(first * sizeof(T)));
  if (!file.read(reinterpret_cast<char*>(elements.data()),
                 static_cast<std::streamsize>(count * sizeof(T))) &&
      count > 0)
    throw Fault(fmt::format("{}: ends before element {}", path.string(), first + count));
  return elements;
}

/// Content hash of a record, independent of its place: the first half of a SHA-256.
using Fingerprint = std::array<std::uint64_t, 2>;
Fingerprint fingerprint_of(const Record& record);

/// Metadata of a record.
struct RecordEntry {
  Fingerprint fingerprint;
  std::uint64_t offset;  // in the file of its rank
  std::uint32_t bytes;
  std::uint32_t source;   // index in the recipe
  std::uint32_t stratum;  // label number, local to the rank; no_stratum if none
  std::uint32_t unused = 0;
};
inline constexpr std::uint32_t no_stratum = UINT32_MAX;

/// Writes the records that one rank reads, in order.
class RecordWriter {
 public:
  RecordWriter(const std::filesystem::path& folder, int rank);
  void add(const Record& record, std::uint32_t source, std::uint32_t stratum);
  void close();
  std::int64_t count() const { return count_; }

 private:
  OutFile records_;
  OutFile entries_;
  std::string buffer_;
  std::int64_t count_ = 0;
};

/// The records of all ranks, ordered by rank.
class Records {
 public:
  Records() = default;
  /// counts: number of records by rank.
  Records(std::filesystem::path folder, std::vector<std::int64_t> counts);
  std::uint64_t size() const { return firsts_.back(); }
  /// Calls use(number, entry, rank) for each record, in order.
  void for_each(const std::function<void(std::uint64_t, const RecordEntry&, int)>& use) const;
  Record read(std::uint64_t number) const;
  Record read(int rank, std::uint64_t offset, std::uint32_t bytes) const;

 private:
  std::filesystem::path folder_;
  std::vector<std::uint64_t> firsts_{0};  // first number of each rank, then the total
  struct File {
    std::ifstream stream;
    std::uint64_t position = 0;
  };
  mutable std::vector<File> files_;  // by rank, opened on first use
};

}  // namespace attune
