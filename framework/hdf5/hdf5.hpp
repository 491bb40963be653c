// A small layer over the HDF5 C API: handles that close themselves, tensors in and out, errors that
// name file and object. Any thread may call: Debian's parallel build of HDF5 is not thread-safe, so
// a lock lets one in at a time.
#pragma once
#include <ATen/core/Tensor.h>
#include <attune/comm.hpp>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace attune::hdf5 {

/// An HDF5 identifier that closes itself.
class Handle {
 public:
  using Close = int (*)(std::int64_t);
  Handle(std::int64_t id, Close close) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle();
  std::int64_t id() const { return id_; }

 private:
  std::int64_t id_;
  Close close_;
};

/// The file behind an object; it closes when the last of its objects has gone.
struct OpenFile {
  std::filesystem::path path;
  Handle handle;
  std::uint64_t bytes;  // of the file when it was opened; 0 for a new one
  bool parallel;
};

/// A file and the path of an object in it.
struct Place {
  std::shared_ptr<const OpenFile> file;
  std::string name;  // "/train/tokens"
  std::string text() const { return file->path.string() + ": " + name; }
};

/// The attributes of a group or dataset. Texts are UTF-8 of fixed length, which lies in the
/// object's header under its checksum; numbers are int64, lists of numbers float64. Setting
/// replaces. Texts of variable length lie in a heap without a checksum, and HDF5 may crash on one
/// that is damaged: they are refused.
class Attributes {
 public:
  Attributes(Place place, std::int64_t object) : place_(std::move(place)), object_(object) {}
  bool has(const std::string& name) const;
  void set(const std::string& name, const std::string& text) const;
  void set(const std::string& name, const std::vector<std::string>& texts) const;
  void set(const std::string& name, std::int64_t number) const;
  void set(const std::string& name, const std::vector<double>& numbers) const;
  /// Error when absent or of another type.
  std::string text(const std::string& name) const;
  std::vector<std::string> texts(const std::string& name) const;
  std::int64_t integer(const std::string& name) const;
  std::vector<double> numbers(const std::string& name) const;

 private:
  Handle open(const std::string& name) const;
  std::vector<std::string> read_texts(const std::string& name) const;
  void write(const std::string& name, std::int64_t type, std::int64_t space,
             const void* values) const;
  Place place_;
  std::int64_t object_;  // owned by the group or dataset this came from
};

/// uint8, int8, int16, int32, int64, float32 and float64 are stored as such (little-endian);
/// bfloat16 and float16 as the 16 bits they are (uint16) and bool as uint8, each with an attribute
/// "dtype" that names the type.
class Dataset {
 public:
  Dataset(Place place, Handle handle);
  const std::vector<std::int64_t>& shape() const { return shape_; }
  at::ScalarType dtype() const { return dtype_; }
  std::int64_t rows() const { return shape_.empty() ? 1 : shape_[0]; }
  std::int64_t row_bytes() const;

  /// The whole tensor. Error when the file cannot hold what the shape claims, or a checksum is
  /// wrong.
  at::Tensor read() const;
  /// Rows first .. first + count - 1 of the first dimension: [count, ...]. Not collective.
  at::Tensor read(std::int64_t first, std::int64_t count) const;
  /// Rows from first on. In a file of several ranks this is collective: a rank that has nothing to
  /// write passes zero rows.
  void write(std::int64_t first, const at::Tensor& rows) const;
  /// More rows, of a dataset made to grow. Collective in a file of several ranks.
  void grow(std::int64_t rows);
  Attributes attributes() const { return {place_, handle_.id()}; }
  const Place& place() const { return place_; }

 private:
  void check_plausible(std::int64_t bytes) const;
  Place place_;
  Handle handle_;
  std::vector<std::int64_t> shape_;
  at::ScalarType dtype_;
};

class Group {
 public:
  Group(Place place, Handle handle) : place_(std::move(place)), handle_(std::move(handle)) {}
  bool has(const std::string& name) const;
  /// Names of groups and datasets in it, ascending.
  std::vector<std::string> members() const;
  Group group(const std::string& name) const;
  Group create_group(const std::string& name) const;
  Dataset dataset(const std::string& name) const;
  /// In even chunks of at most about chunk_bytes along the first dimension, with a Fletcher32
  /// checksum each; scalars and empty tensors are stored without.
  Dataset create_dataset(const std::string& name, at::ScalarType dtype,
                         const std::vector<std::int64_t>& shape,
                         std::int64_t chunk_bytes = 1 << 16) const;
  /// The same without rows yet, for grow. item: the shape of a row.
  Dataset create_growing(const std::string& name, at::ScalarType dtype,
                         const std::vector<std::int64_t>& item, std::int64_t chunk_bytes) const;
  /// A whole tensor. In a file of several ranks all ranks pass the same.
  void write(const std::string& name, const at::Tensor& tensor) const;
  at::Tensor read(const std::string& name) const { return dataset(name).read(); }
  Attributes attributes() const { return {place_, handle_.id()}; }
  const Place& place() const { return place_; }

 private:
  Place inside(const std::string& name) const;
  Dataset create(const std::string& name, at::ScalarType dtype, std::int64_t space,
                 const std::vector<std::int64_t>& chunk) const;
  Place place_;
  Handle handle_;
};

/// Files; what they return is the root group. Reading needs no communicator: every rank reads for
/// itself.
Group open_file(const std::filesystem::path& path);
/// For reading and writing, by this process alone.
Group change_file(const std::filesystem::path& path);
/// A new file, replacing one of that name; through MPI-IO when there are several ranks, and then
/// collective, as all that writes is.
Group create_file(const std::filesystem::path& path, const Comm& comm = {});
/// A new file that is in memory alone, of about `bytes`. label: what errors call it.
Group create_in_memory(const std::string& label, std::size_t bytes);
/// The bytes of a file in memory, flushed; there as long as the file is open and unchanged.
std::span<const std::byte> image(const Group& root);
/// All that was written is handed to the operating system; Error when that fails (disk full).
/// Collective in a file of several ranks.
void flush(const Group& root);

}  // namespace attune::hdf5
