#include "hdf5/hdf5.hpp"

#include <ATen/ops/empty.h>
#include <attune/error.hpp>

#include "parallel/mpi.hpp"  // before hdf5.h: it leaves MPI's old C++ bindings out
#include <hdf5.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "core/names.hpp"

namespace attune::hdf5 {
namespace fs = std::filesystem;
namespace {

static_assert(std::is_same_v<hid_t, std::int64_t>);

/// Held through every call of this layer, closing included; recursive, as the layer's functions use
/// each other.
[[nodiscard]] std::unique_lock<std::recursive_mutex> alone() {
  static std::recursive_mutex mutex;
  return std::unique_lock(mutex);
}

/// Deflate cannot shrink data by more than this.
constexpr std::int64_t largest_compression = 1032;

/// What HDF5 says about the last failure, most specific first.
std::vector<std::string> reasons() {
  std::vector<std::string> texts;
  const auto note = [](unsigned, const H5E_error2_t* error, void* list) -> herr_t {
    if (error->desc) static_cast<std::vector<std::string>*>(list)->emplace_back(error->desc);
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, note, &texts);
  return texts;
}

[[noreturn]] void refuse(const std::string& where, const char* what) {
  const auto why = reasons();
  for (const auto& reason : why)
    if (reason.find("Fletcher32") != std::string::npos)
      fail(
          "{} {}: the checksum of its data is wrong, so the file was damaged after it was written; "
          "make or fetch it again",
          where, what);
  fail("{} {} ({})", where, what, why.empty() ? "HDF5 gives no reason" : why.front());
}

/// A handle, or an Error.
Handle checked(hid_t id, Handle::Close close, const std::string& where, const char* what) {
  if (id < 0) refuse(where, what);
  return {id, close};
}

void check(herr_t status, const std::string& where, const char* what) {
  if (status < 0) refuse(where, what);
}

/// Property lists and dataspaces fail for want of memory alone.
Handle properties(hid_t of) {
  const hid_t id = H5Pcreate(of);
  ATTUNE_ASSERT(id >= 0);
  return {id, H5Pclose};
}

Handle dataspace(const std::vector<std::int64_t>& shape) {
  const std::vector<hsize_t> sizes(shape.begin(), shape.end());
  const hid_t id = shape.empty()
                       ? H5Screate(H5S_SCALAR)
                       : H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr);
  ATTUNE_ASSERT(id >= 0);
  return {id, H5Sclose};
}

/// Of up to so many bytes, and the zero that ends it.
Handle utf8_text(std::size_t bytes) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.id(), bytes + 1);
  H5Tset_cset(type.id(), H5T_CSET_UTF8);
  return type;
}

/// Types HDF5 has no name for: the integer that stands for them, and the attribute that says so.
const std::map<at::ScalarType, std::string>& disguised() {
  static const std::map<at::ScalarType, std::string> names{
      {at::kBFloat16, "bfloat16"}, {at::kHalf, "float16"}, {at::kBool, "bool"}};
  return names;
}

hid_t stored_type(at::ScalarType dtype) {
  switch (dtype) {
    case at::kByte:
    case at::kBool: return H5T_STD_U8LE;
    case at::kChar: return H5T_STD_I8LE;
    case at::kShort: return H5T_STD_I16LE;
    case at::kInt: return H5T_STD_I32LE;
    case at::kLong: return H5T_STD_I64LE;
    case at::kFloat: return H5T_IEEE_F32LE;
    case at::kDouble: return H5T_IEEE_F64LE;
    case at::kBFloat16:
    case at::kHalf: return H5T_STD_U16LE;
    default: break;
  }
  throw Fault(fmt::format("tensors of type {} cannot be stored", c10::toString(dtype)));
}

at::ScalarType dtype_of(const Place& place, const Handle& dataset) {
  const Handle type(H5Dget_type(dataset.id()), H5Tclose);
  if (const Attributes attributes(place, dataset.id()); attributes.has("dtype")) {
    const auto name = attributes.text("dtype");
    for (const auto& [dtype, text] : disguised())
      if (text == name && H5Tequal(type.id(), stored_type(dtype)) > 0) return dtype;
    fail("{}: its attribute dtype is '{}', which does not match the stored type", place.text(),
         name);
  }
  for (const auto dtype :
       {at::kByte, at::kChar, at::kShort, at::kInt, at::kLong, at::kFloat, at::kDouble})
    if (H5Tequal(type.id(), stored_type(dtype)) > 0) return dtype;
  fail(
      "{}: its element type is not one of uint8, int8, int16, int32, int64, float32, float64 "
      "(little-endian)",
      place.text());
}

std::vector<std::int64_t> shape_of(const Place& place, const Handle& dataset) {
  const Handle space(H5Dget_space(dataset.id()), H5Sclose);
  const int rank = H5Sget_simple_extent_ndims(space.id());
  if (rank < 0) refuse(place.text(), "has no readable shape");
  std::vector<hsize_t> sizes(static_cast<std::size_t>(rank));
  H5Sget_simple_extent_dims(space.id(), sizes.data(), nullptr);
  std::int64_t elements = 1;
  for (const auto size : sizes)
    if (size > static_cast<hsize_t>(INT64_MAX) ||
        __builtin_mul_overflow(elements, static_cast<std::int64_t>(size), &elements) ||
        elements > INT64_MAX / 8)
      fail("{}: its shape is impossibly large; the file is damaged", place.text());
  return {sizes.begin(), sizes.end()};
}

/// Bytes of one row of this shape.
std::int64_t row_size(at::ScalarType dtype, const std::vector<std::int64_t>& shape) {
  auto bytes = static_cast<std::int64_t>(c10::elementSize(dtype));
  for (std::size_t i = 1; i < shape.size(); ++i) bytes *= shape[i];
  return bytes;
}

/// Rows first .. first + count - 1 of a dataset's space.
Handle row_selection(const std::vector<std::int64_t>& shape, std::int64_t first,
                     std::int64_t count) {
  Handle space = dataspace(shape);
  if (count == 0) {
    H5Sselect_none(space.id());
  } else if (!shape.empty()) {
    std::vector<hsize_t> start(shape.size(), 0);
    std::vector<hsize_t> size(shape.begin(), shape.end());
    start[0] = static_cast<hsize_t>(first);
    size[0] = static_cast<hsize_t>(count);
    H5Sselect_hyperslab(space.id(), H5S_SELECT_SET, start.data(), nullptr, size.data(), nullptr);
  }
  return space;
}

Handle access_properties() {
  // HDF5 would print its own stack; errors here carry its reason.
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  Handle access = properties(H5P_FILE_ACCESS);
  // From format 1.8 on, metadata have checksums and attributes no size limit.
  H5Pset_libver_bounds(access.id(), H5F_LIBVER_V18, H5F_LIBVER_LATEST);
  // Lock where the file system can, go on where it cannot (many parallel ones).
  H5Pset_file_locking(access.id(), true, true);
  return access;
}

Group root_of(std::shared_ptr<const OpenFile> file) {
  Handle root = checked(H5Gopen2(file->handle.id(), "/", H5P_DEFAULT), H5Gclose,
                        file->path.string(), "has no root group");
  return {Place{std::move(file), "/"}, std::move(root)};
}

Group open_existing(const fs::path& path, unsigned flags) {
  std::error_code missing;
  const auto bytes = fs::file_size(path, missing);
  if (missing)
    fail("{}: there is no such file, or it cannot be read (`attune prepare` makes data files)",
         path.string());
  const Handle access = access_properties();
  Handle handle = checked(H5Fopen(path.c_str(), flags, access.id()), H5Fclose, path.string(),
                          "cannot be opened as an HDF5 file");
  return root_of(std::make_shared<OpenFile>(OpenFile{path, std::move(handle), bytes, false}));
}

}  // namespace

Handle::~Handle() {
  if (id_ < 0) return;
  const auto lock = alone();
  close_(id_);
}

// --- Attributes

bool Attributes::has(const std::string& name) const {
  const auto lock = alone();
  return H5Aexists(object_, name.c_str()) > 0;
}

Handle Attributes::open(const std::string& name) const {
  const auto lock = alone();
  if (!has(name)) fail("{}: the attribute '{}' is missing", place_.text(), name);
  return checked(H5Aopen(object_, name.c_str(), H5P_DEFAULT), H5Aclose, place_.text(),
                 "has an attribute that cannot be opened");
}

void Attributes::write(const std::string& name, std::int64_t type, std::int64_t space,
                       const void* values) const {
  const auto lock = alone();
  if (has(name))
    check(H5Adelete(object_, name.c_str()), place_.text(),
          "has an attribute that cannot be replaced");
  const Handle attribute =
      checked(H5Acreate2(object_, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
              place_.text(), "takes no more attributes");
  check(H5Awrite(attribute.id(), type, values), place_.text(), "cannot take an attribute");
}

void Attributes::set(const std::string& name, const std::string& text) const {
  const auto lock = alone();
  write(name, utf8_text(text.size()).id(), dataspace({}).id(), text.c_str());
}

void Attributes::set(const std::string& name, const std::vector<std::string>& texts) const {
  const auto lock = alone();
  std::size_t longest = 0;
  for (const auto& text : texts) longest = std::max(longest, text.size());
  std::string characters;
  for (const auto& text : texts) characters += text + std::string(longest + 1 - text.size(), '\0');
  write(name, utf8_text(longest).id(), dataspace({static_cast<std::int64_t>(texts.size())}).id(),
        characters.data());
}

void Attributes::set(const std::string& name, std::int64_t number) const {
  const auto lock = alone();
  write(name, H5T_STD_I64LE, dataspace({}).id(), &number);
}

void Attributes::set(const std::string& name, const std::vector<double>& numbers) const {
  const auto lock = alone();
  write(name, H5T_IEEE_F64LE, dataspace({static_cast<std::int64_t>(numbers.size())}).id(),
        numbers.data());
}

std::vector<std::string> Attributes::read_texts(const std::string& name) const {
  const auto lock = alone();
  const Handle attribute = open(name);
  const Handle type(H5Aget_type(attribute.id()), H5Tclose);
  if (H5Tget_class(type.id()) != H5T_STRING)
    fail("{}: the attribute '{}' is not a text", place_.text(), name);
  if (H5Tis_variable_str(type.id()) != 0)
    fail(
        "{}: the attribute '{}' is a variable-length text, which HDF5 cannot read safely from a "
        "damaged file; recreate the file with this Attune",
        place_.text(), name);
  const Handle space(H5Aget_space(attribute.id()), H5Sclose);
  const auto count =
      static_cast<std::size_t>(std::max<hssize_t>(0, H5Sget_simple_extent_npoints(space.id())));
  const auto width = H5Tget_size(type.id());
  if (width == 0 || H5Aget_storage_size(attribute.id()) / width < count)
    fail("{}: the attribute '{}' claims more texts than it holds", place_.text(), name);
  std::vector<std::string> texts;
  if (count == 0) return texts;
  std::string characters(count * width, '\0');
  check(H5Aread(attribute.id(), type.id(), characters.data()), place_.text(),
        "has an attribute that cannot be read");
  for (std::size_t i = 0; i < count; ++i)
    texts.emplace_back(characters.substr(i * width, width).c_str());
  return texts;
}

std::string Attributes::text(const std::string& name) const {
  auto texts = read_texts(name);
  if (texts.size() != 1)
    fail("{}: the attribute '{}' should be one text, but contains {}", place_.text(), name,
         texts.size());
  return std::move(texts.front());
}

std::vector<std::string> Attributes::texts(const std::string& name) const {
  return read_texts(name);
}

std::int64_t Attributes::integer(const std::string& name) const {
  const auto lock = alone();
  const Handle attribute = open(name);
  const Handle type(H5Aget_type(attribute.id()), H5Tclose);
  const Handle space(H5Aget_space(attribute.id()), H5Sclose);
  if (H5Tget_class(type.id()) != H5T_INTEGER || H5Sget_simple_extent_npoints(space.id()) != 1)
    fail("{}: the attribute '{}' is not a whole number", place_.text(), name);
  std::int64_t number = 0;
  check(H5Aread(attribute.id(), H5T_NATIVE_INT64, &number), place_.text(),
        "has an attribute that cannot be read");
  return number;
}

std::vector<double> Attributes::numbers(const std::string& name) const {
  const auto lock = alone();
  const Handle attribute = open(name);
  const Handle type(H5Aget_type(attribute.id()), H5Tclose);
  const Handle space(H5Aget_space(attribute.id()), H5Sclose);
  const auto count =
      static_cast<std::size_t>(std::max<hssize_t>(0, H5Sget_simple_extent_npoints(space.id())));
  if (H5Tget_class(type.id()) != H5T_FLOAT || H5Aget_storage_size(attribute.id()) < count)
    fail("{}: the attribute '{}' is not a list of numbers", place_.text(), name);
  std::vector<double> numbers(count);
  if (count > 0)
    check(H5Aread(attribute.id(), H5T_NATIVE_DOUBLE, numbers.data()), place_.text(),
          "has an attribute that cannot be read");
  return numbers;
}

// --- Dataset

Dataset::Dataset(Place place, Handle handle)
    : place_(std::move(place)),
      handle_(std::move(handle)),
      shape_(shape_of(place_, handle_)),
      dtype_(dtype_of(place_, handle_)) {}

std::int64_t Dataset::row_bytes() const { return row_size(dtype_, shape_); }

/// A forged shape must not make us allocate: the file has to hold what is asked for.
void Dataset::check_plausible(std::int64_t bytes) const {
  const auto lock = alone();
  if (place_.file->bytes == 0 || bytes == 0) return;  // ours, just written
  const auto stored = static_cast<std::int64_t>(
      std::min<std::uint64_t>(H5Dget_storage_size(handle_.id()), place_.file->bytes));
  const Handle creation(H5Dget_create_plist(handle_.id()), H5Pclose);
  const bool compressed = H5Pget_nfilters(creation.id()) > 1;  // more than the checksum
  if (bytes / (compressed ? largest_compression : 1) > stored)
    fail("{}: its shape needs {} bytes, but the file has {}; the file is truncated or damaged",
         place_.text(), bytes, stored);
}

namespace {

/// HDF5 gives zeros for what lies beyond a file's end, with checksums that fit: a file that was cut
/// after it was opened would go unnoticed.
void check_not_cut(const OpenFile& file) {
  int* descriptor = nullptr;
  struct stat status{};
  if (file.bytes == 0 || file.parallel ||
      H5Fget_vfd_handle(file.handle.id(), H5P_DEFAULT, reinterpret_cast<void**>(&descriptor)) < 0)
    return;
  if (::fstat(*descriptor, &status) != 0 || static_cast<std::uint64_t>(status.st_size) < file.bytes)
    fail(
        "{}: has {} bytes now and had {} when it was opened: another process truncated or "
        "overwrote it; recreate or fetch it again",
        file.path.string(), status.st_size, file.bytes);
}

}  // namespace

at::Tensor Dataset::read() const {
  const auto lock = alone();
  return shape_.empty() ? read(0, 1).reshape({}) : read(0, rows());
}

at::Tensor Dataset::read(std::int64_t first, std::int64_t count) const {
  const auto lock = alone();
  ATTUNE_ASSERT(first >= 0 && count >= 0 && first <= rows() - count, "first {} count {} rows {}",
                first, count, rows());
  check_not_cut(*place_.file);
  check_plausible(count * row_bytes());
  auto sizes = shape_.empty() ? std::vector<std::int64_t>{1} : shape_;
  sizes[0] = count;
  at::Tensor result = at::empty(sizes, dtype_);
  if (result.numel() == 0) return result;
  const Handle memory = dataspace(sizes);
  const Handle selection = row_selection(shape_, first, count);
  check(H5Dread(handle_.id(), stored_type(dtype_), memory.id(), selection.id(), H5P_DEFAULT,
                result.data_ptr()),
        place_.text(), "cannot be read");
  return result;
}

void Dataset::write(std::int64_t first, const at::Tensor& values) const {
  const auto lock = alone();
  const at::Tensor source = values.detach().cpu().contiguous();
  const std::int64_t count = shape_.empty() ? 1 : source.size(0);
  ATTUNE_ASSERT(
      source.scalar_type() == dtype_ && first >= 0 && first <= rows() - count &&
          source.numel() * static_cast<std::int64_t>(source.element_size()) == count * row_bytes(),
      "{}: first {} count {} rows {}", place_.text(), first, count, rows());
  auto sizes = shape_;
  if (!sizes.empty()) sizes[0] = count;
  const Handle memory = row_selection(sizes, 0, count);
  const Handle selection = row_selection(shape_, first, count);
  const Handle transfer = properties(H5P_DATASET_XFER);
  if (place_.file->parallel) H5Pset_dxpl_mpio(transfer.id(), H5FD_MPIO_COLLECTIVE);
  check(H5Dwrite(handle_.id(), stored_type(dtype_), memory.id(), selection.id(), transfer.id(),
                 source.data_ptr()),
        place_.text(), "cannot be written");
}

void Dataset::grow(std::int64_t rows) {
  const auto lock = alone();
  shape_.at(0) += rows;
  const std::vector<hsize_t> sizes(shape_.begin(), shape_.end());
  check(H5Dset_extent(handle_.id(), sizes.data()), place_.text(), "cannot grow");
}

// --- Group

Place Group::inside(const std::string& name) const {
  return {place_.file, (place_.name == "/" ? "" : place_.name) + "/" + name};
}

bool Group::has(const std::string& name) const {
  const auto lock = alone();
  return H5Lexists(handle_.id(), name.c_str(), H5P_DEFAULT) > 0;
}

std::vector<std::string> Group::members() const {
  const auto lock = alone();
  std::vector<std::string> names;
  const auto note = [](hid_t, const char* name, const H5L_info_t*, void* list) -> herr_t {
    static_cast<std::vector<std::string>*>(list)->emplace_back(name);
    return 0;
  };
  check(H5Literate(handle_.id(), H5_INDEX_NAME, H5_ITER_INC, nullptr, note, &names), place_.text(),
        "cannot be listed");
  return names;
}

Group Group::group(const std::string& name) const {
  const auto lock = alone();
  if (!has(name))
    fail("{}: there is no group '{}'; there are: {}", place_.text(), name, joined(members()));
  return {inside(name), checked(H5Gopen2(handle_.id(), name.c_str(), H5P_DEFAULT), H5Gclose,
                                inside(name).text(), "cannot be opened as a group")};
}

Group Group::create_group(const std::string& name) const {
  const auto lock = alone();
  const Handle creation = properties(H5P_GROUP_CREATE);
  H5Pset_obj_track_times(creation.id(), false);
  return {inside(name),
          checked(H5Gcreate2(handle_.id(), name.c_str(), H5P_DEFAULT, creation.id(), H5P_DEFAULT),
                  H5Gclose, inside(name).text(), "cannot be made")};
}

Dataset Group::dataset(const std::string& name) const {
  const auto lock = alone();
  if (!has(name))
    fail("{}: there is no dataset '{}'; there are: {}", place_.text(), name, joined(members()));
  return {inside(name), checked(H5Dopen2(handle_.id(), name.c_str(), H5P_DEFAULT), H5Dclose,
                                inside(name).text(), "cannot be opened as a dataset")};
}

Dataset Group::create(const std::string& name, at::ScalarType dtype, std::int64_t space,
                      const std::vector<std::int64_t>& chunk) const {
  const auto lock = alone();
  const Handle creation = properties(H5P_DATASET_CREATE);
  H5Pset_obj_track_times(creation.id(), false);
  if (!chunk.empty()) {
    H5Pset_chunk(creation.id(), static_cast<int>(chunk.size()),
                 std::vector<hsize_t>(chunk.begin(), chunk.end()).data());
    H5Pset_fletcher32(creation.id());
  }
  Handle handle = checked(H5Dcreate2(handle_.id(), name.c_str(), stored_type(dtype), space,
                                     H5P_DEFAULT, creation.id(), H5P_DEFAULT),
                          H5Dclose, inside(name).text(), "cannot be made");
  if (const auto alias = disguised().find(dtype); alias != disguised().end())
    Attributes(inside(name), handle.id()).set("dtype", alias->second);
  return {inside(name), std::move(handle)};
}

Dataset Group::create_dataset(const std::string& name, at::ScalarType dtype,
                              const std::vector<std::int64_t>& shape,
                              std::int64_t chunk_bytes) const {
  const auto lock = alone();
  if (shape.empty() || std::find(shape.begin(), shape.end(), 0) != shape.end())
    return create(name, dtype, dataspace(shape).id(), {});
  auto chunk = shape;
  const auto most = std::clamp<std::int64_t>(chunk_bytes / row_size(dtype, shape), 1, shape[0]);
  const auto chunks = (shape[0] + most - 1) / most;
  // even ones: the last lies in the file as a whole one, too
  chunk[0] = (shape[0] + chunks - 1) / chunks;
  return create(name, dtype, dataspace(shape).id(), chunk);
}

Dataset Group::create_growing(const std::string& name, at::ScalarType dtype,
                              const std::vector<std::int64_t>& item,
                              std::int64_t chunk_bytes) const {
  const auto lock = alone();
  std::vector<std::int64_t> chunk{1};
  chunk.insert(chunk.end(), item.begin(), item.end());
  std::vector<hsize_t> now(chunk.begin(), chunk.end());
  std::vector<hsize_t> most = now;
  now[0] = 0;
  most[0] = H5S_UNLIMITED;
  const Handle space(H5Screate_simple(static_cast<int>(now.size()), now.data(), most.data()),
                     H5Sclose);
  chunk[0] = std::max<std::int64_t>(1, chunk_bytes / row_size(dtype, chunk));
  return create(name, dtype, space.id(), chunk);
}

void Group::write(const std::string& name, const at::Tensor& tensor) const {
  const auto lock = alone();
  const Dataset dataset = create_dataset(name, tensor.scalar_type(), tensor.sizes().vec(), 1 << 20);
  dataset.write(0, tensor);
}

// --- Files

Group open_file(const fs::path& path) {
  const auto lock = alone();
  return open_existing(path, H5F_ACC_RDONLY);
}
Group change_file(const fs::path& path) {
  const auto lock = alone();
  return open_existing(path, H5F_ACC_RDWR);
}

Group create_file(const fs::path& path, const Comm& comm) {
  const auto lock = alone();
  const Handle access = access_properties();
  const bool parallel = comm.size() > 1;
  if (parallel) H5Pset_fapl_mpio(access.id(), mpi_handle(comm), MPI_INFO_NULL);
  const Handle creation = properties(H5P_FILE_CREATE);
  H5Pset_obj_track_times(creation.id(), false);
  Handle handle = checked(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.id(), access.id()),
                          H5Fclose, path.string(), "cannot be made");
  return root_of(std::make_shared<OpenFile>(OpenFile{path, std::move(handle), 0, parallel}));
}

Group create_in_memory(const std::string& label, std::size_t bytes) {
  const auto lock = alone();
  const Handle access = access_properties();
  const Handle creation = properties(H5P_FILE_CREATE);
  H5Pset_fapl_core(access.id(), bytes, /*backing_store=*/false);
  H5Pset_obj_track_times(creation.id(), false);
  Handle handle = checked(H5Fcreate(label.c_str(), H5F_ACC_TRUNC, creation.id(), access.id()),
                          H5Fclose, label, "cannot be made in memory");
  return root_of(std::make_shared<OpenFile>(OpenFile{label, std::move(handle), 0, false}));
}

std::span<const std::byte> image(const Group& root) {
  const auto lock = alone();
  flush(root);
  const auto& file = *root.place().file;
  void* buffer = nullptr;  // the driver's pointer to its memory
  check(H5Fget_vfd_handle(file.handle.id(), H5P_DEFAULT, &buffer), file.path.string(),
        "is not in memory");
  const auto bytes = H5Fget_file_image(file.handle.id(), nullptr, 0);  // asked for its size alone
  if (bytes < 0) refuse(file.path.string(), "has no size");
  return {*static_cast<std::byte**>(buffer), static_cast<std::size_t>(bytes)};
}

void flush(const Group& root) {
  const auto lock = alone();
  const auto& file = *root.place().file;
  check(H5Fflush(file.handle.id(), H5F_SCOPE_GLOBAL), file.path.string(), "cannot be written");
}

}  // namespace attune::hdf5
