// A thin layer over the HDF5 C API: RAII handles, tensors, and errors that name file and object.
// Thread-safe: a global lock serialises all calls, because Debian's parallel build of HDF5 is not
// thread-safe.
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

/// An owned HDF5 identifier.
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

/// The file of an object; it closes with the last of its objects.
struct OpenFile {
  std::filesystem::path path;
  Handle handle;
  std::uint64_t bytes;  // file size when it was opened; 0 for a new file
  bool parallel;
};

/// A file and the path of an object in it.
struct Place {
  std::shared_ptr<const OpenFile> file;
  std::string name;  // "/train/tokens"
  std::string text() const { return file->path.string() + ": " + name; }
};

/// Attributes of a group or dataset. Texts are fixed-length UTF-8, stored in the object's header
/// under its checksum. Numbers are int64, lists of numbers float64. Setting replaces a value.
/// Variable-length texts are rejected: they are stored in a heap without a checksum, and HDF5 may
/// crash on a damaged one.
class Attributes {
 public:
  Attributes(Place place, std::int64_t object) : place_(std::move(place)), object_(object) {}
  bool has(const std::string& name) const;
  void set(const std::string& name, const std::string& text) const;
  void set(const std::string& name, const std::vector<std::string>& texts) const;
  void set(const std::string& name, std::int64_t number) const;
  void set(const std::string& name, const std::vector<double>& numbers) const;
  /// Error if the attribute is absent or of another type.
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
  std::int64_t object_;  // owned by the group or dataset
};

/// A dataset. uint8, int8, int16, int32, int64, float32 and float64 are stored as such
/// (little-endian). bfloat16 and float16 are stored as uint16 with the same bits, and bool as
/// uint8, each with an attribute "dtype" that names the type.
class Dataset {
 public:
  Dataset(Place place, Handle handle);
  const std::vector<std::int64_t>& shape() const { return shape_; }
  at::ScalarType dtype() const { return dtype_; }
  std::int64_t rows() const { return shape_.empty() ? 1 : shape_[0]; }
  std::int64_t row_bytes() const;

  /// Error if the file is too small for the shape.
  void check_size() const { check_plausible(rows() * row_bytes()); }
  /// The whole tensor. Error if the file is too small for the shape, or a checksum is wrong.
  at::Tensor read() const;
  /// Rows first .. first + count - 1 of the first dimension: [count, ...]. Not collective.
  at::Tensor read(std::int64_t first, std::int64_t count) const;
  /// Writes rows starting at `first`. Collective in a file of several ranks; a rank without data
  /// passes zero rows.
  void write(std::int64_t first, const at::Tensor& rows) const;
  /// Sets the number of rows of a growing dataset. Collective in a file of several ranks.
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
  /// Names of its groups and datasets, ascending.
  std::vector<std::string> members() const;
  Group group(const std::string& name) const;
  Group create_group(const std::string& name) const;
  Dataset dataset(const std::string& name) const;
  /// Creates a dataset with chunks of equal size, at most about chunk_bytes, along the first
  /// dimension, each with a Fletcher32 checksum. Scalars and empty tensors are not chunked.
  Dataset create_dataset(const std::string& name, at::ScalarType dtype,
                         const std::vector<std::int64_t>& shape,
                         std::int64_t chunk_bytes = 1 << 16) const;
  /// Creates a dataset without rows, for grow(). item: shape of a row.
  Dataset create_growing(const std::string& name, at::ScalarType dtype,
                         const std::vector<std::int64_t>& item, std::int64_t chunk_bytes) const;
  /// Writes a whole tensor. In a file of several ranks, all ranks pass the same tensor.
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

/// Opens a file for reading and returns its root group. Not collective.
Group open_file(const std::filesystem::path& path);
/// Opens a file for reading and writing by this process alone.
Group change_file(const std::filesystem::path& path);
/// Creates or replaces a file. With several ranks it is opened through MPI-IO, and this and all
/// writes are collective.
Group create_file(const std::filesystem::path& path, const Comm& comm = {});
/// Creates a file in memory, with about `bytes`. label: name in error messages.
Group create_in_memory(const std::string& label, std::size_t bytes);
/// The bytes of a file in memory, flushed. Valid as long as the file is open and unchanged.
std::span<const std::byte> image(const Group& root);
/// Flushes all data to the operating system; Error if that fails (disk full). Collective in a file
/// of several ranks.
void flush(const Group& root);

}  // namespace attune::hdf5
