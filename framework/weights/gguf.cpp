#include "weights/gguf.hpp"

#include <ATen/ops/empty.h>
#include <attune/error.hpp>

#include <algorithm>
#include <bit>
#include <cstring>
#include <regex>

#include "core/files.hpp"
#include "weights/ggml_encoding.hpp"

namespace attune {
namespace fs = std::filesystem;
using nlohmann::json;
using namespace weights;
namespace {

constexpr std::uint32_t most_dimensions = 4;
constexpr int deepest_array = 4;
constexpr std::uint64_t default_alignment = 32;
constexpr std::uint64_t largest_alignment = 1 << 20;

// The least that one item takes in the file: an impossible count is refused before anything is
// allocated for it.
constexpr std::uint64_t least_pair_bytes = 8 + 4 + 1;
constexpr std::uint64_t least_tensor_bytes = 8 + 4 + 8 + 4 + 8;

/// Reads on from where it stands; never past the end of the file.
class Cursor {
 public:
  explicit Cursor(const MappedFile& file) : file_(file) {}

  template <class T>
  T number(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof value, what), sizeof value);
    return value;
  }
  std::string text(const char* what) {
    const auto length = number<std::uint64_t>(what);
    return {take(length, what), static_cast<std::size_t>(length)};
  }
  /// A count of items that take at least so many bytes each.
  std::uint64_t count(std::uint64_t least_bytes, const char* what) {
    const auto claimed = number<std::uint64_t>(what);
    if (claimed > remaining() / least_bytes)
      fail(
          "{}: claims {} {}, more than its {} bytes can hold; it is truncated or damaged, fetch it "
          "again",
          path(), claimed, what, file_.size());
    return claimed;
  }
  std::uint64_t position() const { return position_; }
  std::uint64_t remaining() const { return file_.size() - position_; }
  std::string path() const { return file_.path().string(); }

 private:
  /// Valid until the next call.
  const char* take(std::uint64_t bytes, const char* what) {
    if (bytes > remaining())
      fail("{}: ends within its {} (at byte {}); it is truncated or damaged, fetch it again",
           path(), what, position_);
    const auto offset = position_ - window_begin_;
    const bool is_there =
        position_ >= window_begin_ && offset <= window_.size() && bytes <= window_.size() - offset;
    if (!is_there) {
      window_ = file_.read(position_, std::min(remaining(), std::max(bytes, window_bytes)));
      window_begin_ = position_;
    }
    position_ += bytes;
    return window_.data() + (position_ - bytes - window_begin_);
  }

  static constexpr std::uint64_t window_bytes = 1 << 20;
  const MappedFile& file_;
  std::string window_;  // what was read last, from window_begin_ on
  std::uint64_t window_begin_ = 0;
  std::uint64_t position_ = 0;
};

enum class ValueType : std::uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64
};

std::uint64_t least_bytes(ValueType type) {
  constexpr std::uint64_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
  return bytes[static_cast<std::size_t>(type)];
}

ValueType read_value_type(Cursor& cursor) {
  const auto type = cursor.number<std::uint32_t>("metadata");
  if (type > static_cast<std::uint32_t>(ValueType::f64))
    fail(
        "{}: has a metadata value of the unknown type {} (at byte {}); it is damaged, fetch it "
        "again",
        cursor.path(), type, cursor.position());
  return static_cast<ValueType>(type);
}

json read_value(Cursor& cursor, ValueType type, int depth);

json read_array(Cursor& cursor, int depth) {
  if (depth > deepest_array)
    fail("{}: has metadata arrays nested more than {} deep; it is damaged, fetch it again",
         cursor.path(), deepest_array);
  const auto type = read_value_type(cursor);
  const auto count = cursor.count(least_bytes(type), "array elements");
  json::array_t values;
  values.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) values.push_back(read_value(cursor, type, depth));
  return values;
}

json read_value(Cursor& cursor, ValueType type, int depth = 0) {
  constexpr auto what = "metadata";
  switch (type) {
    case ValueType::u8: return cursor.number<std::uint8_t>(what);
    case ValueType::i8: return cursor.number<std::int8_t>(what);
    case ValueType::u16: return cursor.number<std::uint16_t>(what);
    case ValueType::i16: return cursor.number<std::int16_t>(what);
    case ValueType::u32: return cursor.number<std::uint32_t>(what);
    case ValueType::i32: return cursor.number<std::int32_t>(what);
    case ValueType::f32: return cursor.number<float>(what);
    case ValueType::boolean: return cursor.number<std::uint8_t>(what) != 0;
    case ValueType::string: return cursor.text(what);
    case ValueType::array: return read_array(cursor, depth + 1);
    case ValueType::u64: return cursor.number<std::uint64_t>(what);
    case ValueType::i64: return cursor.number<std::int64_t>(what);
    case ValueType::f64: return cursor.number<double>(what);
  }
  ATTUNE_ASSERT(false, "value type {}", static_cast<std::uint32_t>(type));
}

void check_start(const MappedFile& file, Cursor& cursor) {
  refuse_stand_in(file);
  if (cursor.remaining() < 4 || cursor.number<std::uint32_t>("magic") != 0x46554747)  // "GGUF"
    fail("{}: is not a GGUF file (it does not begin with the letters GGUF)", cursor.path());
  const auto version = cursor.number<std::uint32_t>("version");
  if (version != 2 && version != 3)
    fail("{}: is GGUF of version {}; supported are the little-endian versions 2 and 3",
         cursor.path(), version);
}

json read_metadata(Cursor& cursor, std::uint64_t pairs) {
  auto metadata = json::object();
  for (std::uint64_t i = 0; i < pairs; ++i) {
    const auto key = cursor.text("metadata");
    const auto type = read_value_type(cursor);
    if (!metadata.emplace(key, read_value(cursor, type)).second)
      fail("{}: has the metadata key '{}' twice; it is damaged, fetch it again", cursor.path(),
           key);
  }
  return metadata;
}

std::uint64_t alignment(const json& metadata, const std::string& path) {
  const auto found = metadata.find("general.alignment");
  if (found == metadata.end()) return default_alignment;
  const auto value = found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
  if (value < 8 || value > largest_alignment || !std::has_single_bit(value))
    fail("{}: has general.alignment {}; it must be a power of two from 8 to {}", path,
         found->dump(-1, ' ', false, json::error_handler_t::replace), largest_alignment);
  return value;
}

/// A tensor as the file describes it; its offset counts from the start of the tensor data.
struct GgufTensor {
  TensorInfo info;
  const GgmlEncoding* encoding;
  std::uint64_t offset;
};

GgufTensor read_entry(Cursor& cursor) {
  GgufTensor entry;
  entry.info.name = cursor.text("tensor names");
  const auto& name = entry.info.name;
  const auto dimensions = cursor.number<std::uint32_t>("tensor shapes");
  if (dimensions == 0 || dimensions > most_dimensions)
    fail("{}: tensor '{}' claims {} dimensions, not 1 to {}; the file is damaged, fetch it again",
         cursor.path(), name, dimensions, most_dimensions);
  for (std::uint32_t i = 0; i < dimensions; ++i)
    entry.info.shape.push_back(cursor.number<std::int64_t>("tensor shapes"));
  std::reverse(entry.info.shape.begin(), entry.info.shape.end());
  const auto type = cursor.number<std::uint32_t>("tensor types");
  entry.encoding = find_encoding(type);
  if (!entry.encoding) {
    fail("{}: tensor '{}' is stored as {}, which is not supported; supported are {}", cursor.path(),
         name, encoding_name(type), supported_encodings());
  }
  entry.offset = cursor.number<std::uint64_t>("tensor offsets");
  const auto count = element_count(entry.info.shape);
  const auto row = static_cast<std::uint64_t>(entry.info.shape.back());
  if (!count || *count == 0 || row % entry.encoding->block_values != 0)
    fail("{}: tensor '{}' cannot have the shape {} as {}; the file is damaged, fetch it again",
         cursor.path(), name, shape_text(entry.info.shape), entry.encoding->name);
  entry.info.stored = entry.encoding->name;
  if (__builtin_mul_overflow(*count / entry.encoding->block_values, entry.encoding->block_bytes,
                             &entry.info.bytes))
    entry.info.bytes = UINT64_MAX;
  return entry;
}

/// Every tensor aligned, within the data, and over no other.
void check_layout(const std::string& path, const std::vector<GgufTensor>& entries,
                  std::uint64_t data_bytes, std::uint64_t alignment) {
  std::vector<const GgufTensor*> ordered;
  for (const auto& entry : entries) ordered.push_back(&entry);
  std::sort(ordered.begin(), ordered.end(),
            [](const GgufTensor* a, const GgufTensor* b) { return a->offset < b->offset; });
  std::uint64_t end = 0;
  for (const auto* entry : ordered) {
    if (entry->offset % alignment != 0)
      fail(
          "{}: tensor '{}' begins at byte {}, which is not aligned to {}; the file is damaged, "
          "fetch it again",
          path, entry->info.name, entry->offset, alignment);
    if (entry->offset > data_bytes || entry->info.bytes > data_bytes - entry->offset)
      fail(
          "{}: tensor '{}' ({} bytes from {}) reaches beyond the {} bytes of tensor data; the file "
          "is truncated or damaged, fetch it again",
          path, entry->info.name, entry->info.bytes, entry->offset, data_bytes);
    if (entry->offset < end)
      fail("{}: tensor '{}' overlaps the one before it; the file is damaged, fetch it again", path,
           entry->info.name);
    end = entry->offset + entry->info.bytes;
  }
}

/// What one file says of itself.
struct GgufPart {
  std::shared_ptr<MappedFile> file;
  json metadata;
  std::vector<GgufTensor> entries;
  std::uint64_t data_begin;
};

GgufPart read_part(const fs::path& path) {
  GgufPart part{.file = MappedFile::open(path), .metadata = {}, .entries = {}, .data_begin = 0};
  Cursor cursor(*part.file);
  check_start(*part.file, cursor);
  const auto tensor_count = cursor.count(least_tensor_bytes, "tensors");
  const auto pairs = cursor.count(least_pair_bytes, "metadata pairs");
  part.metadata = read_metadata(cursor, pairs);
  for (std::uint64_t i = 0; i < tensor_count; ++i) part.entries.push_back(read_entry(cursor));

  const auto aligned = alignment(part.metadata, path.string());
  part.data_begin = std::min<std::uint64_t>((cursor.position() + aligned - 1) / aligned * aligned,
                                            part.file->size());
  check_layout(path.string(), part.entries, part.file->size() - part.data_begin, aligned);
  return part;
}

/// A number of the split.* metadata; absent in a file that is whole.
std::optional<std::uint64_t> split_number(const GgufPart& part, const char* key) {
  const auto found = part.metadata.find(key);
  if (found == part.metadata.end() || !found->is_number_integer() || *found < 0)
    return std::nullopt;
  return found->get<std::uint64_t>();
}

/// Error unless the part is number `number` of `count`.
void check_split(const GgufPart& part, std::uint64_t number, std::uint64_t count) {
  const auto own = split_number(part, "split.no");
  const auto of = split_number(part, "split.count");
  if (own != number || of != count)
    fail("{}: is not part {} of {} of a model, as its name says; fetch it again",
         part.file->path().string(), number + 1, count);
}

/// The parts of a model, the first of which is `first`: "NAME-00001-of-00003.gguf" and those beside
/// it.
std::vector<GgufPart> read_parts(GgufPart first) {
  const auto path = first.file->path();
  const auto count = split_number(first, "split.count").value_or(1);
  std::vector<GgufPart> parts;
  parts.push_back(std::move(first));
  if (count <= 1) return parts;
  const auto name = GgufPartName::parse(path.filename().string());
  if (!name || name->count != count)
    fail(
        "{}: is one part of {}, but not named as one (NAME-00001-of-{:05}.gguf); restore the names "
        "of the parts",
        path.string(), count, count);
  if (name->number != 1)
    fail("{}: is part {} of {}; name the first part, {}", path.string(), name->number, count,
         name->file_of(1));
  check_split(parts.front(), 0, count);
  for (std::uint64_t number = 2; number <= count; ++number) {
    const auto next = path.parent_path() / name->file_of(number);
    if (!fs::exists(next))
      fail("{}: is part 1 of {}, but {} is not beside it; fetch that part too", path.string(),
           count, next.filename().string());
    parts.push_back(read_part(next));
    check_split(parts.back(), number - 1, count);
  }
  return parts;
}

}  // namespace

std::optional<GgufPartName> GgufPartName::parse(const std::string& file_name) {
  static const std::regex pattern(R"((.*)-(\d{5})-of-(\d{5})\.gguf)");
  std::smatch match;
  if (!std::regex_match(file_name, match, pattern)) return std::nullopt;
  return GgufPartName{match[1], std::stoull(match[2]), std::stoull(match[3])};
}

std::string GgufPartName::file_of(std::uint64_t part) const {
  return fmt::format("{}-{:05}-of-{:05}.gguf", stem, part, count);
}

GgufFile::GgufFile(const fs::path& path) : path_(path), table_(path) {
  auto parts = read_parts(read_part(path));
  metadata_ = std::move(parts.front().metadata);
  for (auto& part : parts) {
    files_.push_back(part.file->path());
    for (auto& entry : part.entries) {
      places_.push_back({part.file, entry.encoding, part.data_begin + entry.offset});
      table_.add(std::move(entry.info));
    }
  }
}

at::Tensor GgufFile::values(const std::string& name) const {
  const auto position = table_.find(name);
  const auto& info = table_.all()[position];
  const auto& [file, encoding, begin] = places_[position];
  if (!encoding->dequantize) return tensor_over(file, begin, info.shape, encoding->type);
  auto values = at::empty(info.shape, at::kFloat);
  encoding->dequantize(file->data() + begin,
                       static_cast<std::int64_t>(info.bytes / encoding->block_bytes),
                       values.mutable_data_ptr<float>());
  return values;
}

json gguf_metadata(const fs::path& path) {
  const auto file = MappedFile::open(path);
  Cursor cursor(*file);
  check_start(*file, cursor);
  cursor.count(least_tensor_bytes, "tensors");
  return read_metadata(cursor, cursor.count(least_pair_bytes, "metadata pairs"));
}

}  // namespace attune
