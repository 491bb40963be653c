#include "weights/safetensors.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "core/files.hpp"
#include "core/names.hpp"
#include "weights/json_file.hpp"
#include "weights/tensor_table.hpp"

namespace attune {
namespace fs = std::filesystem;
using nlohmann::json;
using namespace weights;
namespace {

struct Dtype {
  const char* name;
  at::ScalarType type;
};
constexpr Dtype dtypes[] = {{"F64", at::kDouble},    {"F32", at::kFloat}, {"F16", at::kHalf},
                            {"BF16", at::kBFloat16}, {"I64", at::kLong},  {"I32", at::kInt},
                            {"I16", at::kShort},     {"I8", at::kChar},   {"U8", at::kByte},
                            {"BOOL", at::kBool}};

std::string dtype_names() {
  std::vector<std::string> names;
  for (const auto& dtype : dtypes) names.emplace_back(dtype.name);
  return joined(names);
}

constexpr std::uint64_t length_bytes = 8;
constexpr std::uint64_t largest_header = 100'000'000;  // as in the reference implementation

/// A tensor as the header describes it; offsets count from the start of the file.
struct StoredTensor {
  TensorInfo info;
  at::ScalarType type;
  std::uint64_t begin;
  std::uint64_t end;
};

/// The header's text, with its own length checked against the file's.
std::string header_text(const MappedFile& file) {
  const auto path = file.path().string();
  refuse_stand_in(file);
  if (file.size() < length_bytes)
    fail("{}: is too short ({} bytes) for a safetensors file; fetch it again", path, file.size());
  std::uint64_t length = 0;
  std::memcpy(&length, file.read(0, length_bytes).data(), length_bytes);
  if (length > largest_header)
    fail(
        "{}: its header claims {} bytes, more than the {} that the format allows; it is not a "
        "safetensors file, or damaged",
        path, length, largest_header);
  if (length > file.size() - length_bytes)
    fail("{}: its header claims {} bytes but the file has {}; it is truncated, fetch it again",
         path, length, file.size());
  return file.read(length_bytes, static_cast<std::size_t>(length));
}

/// JSON parsers keep one of two equal keys; here both mean a tensor, so a second one is refused.
json parse_header(const MappedFile& file, std::string_view text) {
  std::set<std::string> names;
  const auto refuse_duplicates = [&](int depth, json::parse_event_t event, json& key) {
    if (event == json::parse_event_t::key && depth == 1 &&
        !names.insert(key.get<std::string>()).second)
      fail("{}: its header names the tensor '{}' twice; the file is damaged, fetch it again",
           file.path().string(), key.get<std::string>());
    return true;
  };
  try {
    auto header = json::parse(text.begin(), text.end(), refuse_duplicates);
    if (header.is_object()) return header;
  } catch (const json::exception&) {
  }
  fail("{}: its header is not a JSON object; it is not a safetensors file, or damaged",
       file.path().string());
}

at::ScalarType parse_dtype(const MappedFile& file, const std::string& name, const json& entry) {
  const auto dtype = entry.find("dtype");
  if (dtype == entry.end() || !dtype->is_string())
    fail("{}: tensor '{}' has no dtype; the file is damaged, fetch it again", file.path().string(),
         name);
  const auto found = std::find_if(std::begin(dtypes), std::end(dtypes), [&](const Dtype& known) {
    return dtype->get_ref<const std::string&>() == known.name;
  });
  if (found == std::end(dtypes))
    fail("{}: tensor '{}' is of dtype {}; supported are {}", file.path().string(), name,
         dtype->get_ref<const std::string&>(), dtype_names());
  return found->type;
}

std::vector<std::int64_t> parse_sizes(const MappedFile& file, const std::string& name,
                                      const json& entry, const char* key) {
  const auto sizes = entry.find(key);
  const auto whole = [](const json& size) {
    return size.is_number_unsigned() && size.get<std::uint64_t>() <= INT64_MAX;
  };
  if (sizes == entry.end() || !sizes->is_array() ||
      !std::all_of(sizes->begin(), sizes->end(), whole))
    fail(
        "{}: tensor '{}' has no list of whole numbers as its {}; the file is damaged, fetch it "
        "again",
        file.path().string(), name, key);
  return sizes->get<std::vector<std::int64_t>>();
}

StoredTensor parse_entry(const MappedFile& file, std::uint64_t data_begin, const std::string& name,
                         const json& entry) {
  const auto path = file.path().string();
  if (!entry.is_object())
    fail(
        "{}: the header's entry for tensor '{}' is not an object; the file is damaged, fetch it "
        "again",
        path, name);
  const auto type = parse_dtype(file, name, entry);
  auto shape = parse_sizes(file, name, entry, "shape");
  const auto offsets = parse_sizes(file, name, entry, "data_offsets");
  if (offsets.size() != 2 || offsets[0] > offsets[1])
    fail(
        "{}: tensor '{}' has data_offsets {}, not a begin and an end after it; the file is "
        "damaged, fetch it again",
        path, name, shape_text(offsets));
  const auto begin = static_cast<std::uint64_t>(offsets[0]);
  const auto end = static_cast<std::uint64_t>(offsets[1]);
  if (end > file.size() - data_begin)
    fail(
        "{}: tensor '{}' ends at byte {} of the data but the file has only {}; it is truncated, "
        "fetch it again",
        path, name, end, file.size() - data_begin);
  const auto count = element_count(shape);
  const auto size = at::elementSize(type);
  if (!count || *count > UINT64_MAX / size || *count * size != end - begin)
    fail("{}: tensor '{}' is {} of {} but has {} bytes; the file is damaged, fetch it again", path,
         name, shape_text(shape), entry["dtype"].get<std::string>(), end - begin);
  return {{name, std::move(shape), entry["dtype"].get<std::string>(), end - begin},
          type,
          data_begin + begin,
          data_begin + end};
}

/// The format wants every byte of the data to belong to exactly one tensor.
void check_layout(const MappedFile& file, std::uint64_t data_begin,
                  const std::vector<StoredTensor>& entries) {
  std::uint64_t end = data_begin;
  for (const auto& entry : entries) {
    if (entry.begin != end)
      fail("{}: tensor '{}' {}; the file is damaged, fetch it again", file.path().string(),
           entry.info.name,
           entry.begin < end ? "overlaps the one before it" : "leaves a gap before it");
    end = entry.end;
  }
  if (end != file.size())
    fail("{}: {} bytes follow the last tensor; the file is damaged, fetch it again",
         file.path().string(), file.size() - end);
}

std::vector<StoredTensor> read_entries(const MappedFile& file) {
  const auto text = header_text(file);
  const auto header = parse_header(file, text);
  const auto data_begin = length_bytes + text.size();
  std::vector<StoredTensor> entries;
  for (const auto& [name, entry] : header.items())
    if (name != "__metadata__") entries.push_back(parse_entry(file, data_begin, name, entry));
  std::sort(entries.begin(), entries.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  check_layout(file, data_begin, entries);
  return entries;
}

class Safetensors final : public WeightSource {
 public:
  explicit Safetensors(const fs::path& origin) : table_(origin) {}

  void add(std::shared_ptr<MappedFile> file, StoredTensor entry) {
    table_.add(std::move(entry.info));
    places_.push_back({std::move(file), entry.begin, entry.type});
  }
  /// A tensor that another shard holds already must be the same one.
  void add_from_shard(const std::shared_ptr<MappedFile>& file, StoredTensor entry) {
    if (!table_.has(entry.info.name)) return add(file, std::move(entry));
    const auto position = table_.find(entry.info.name);
    const auto& info = table_.all()[position];
    const auto& place = places_[position];
    const bool is_same =
        info.shape == entry.info.shape && place.type == entry.type &&
        std::memcmp(place.file->data() + place.begin, file->data() + entry.begin, info.bytes) == 0;
    if (is_same) return;
    fail(
        "{}: contains the tensor '{}' with different values than {}; keep only the files of one "
        "model, or fetch them again",
        file->path().string(), info.name, place.file->path().filename().string());
  }
  bool has(const std::string& name) const { return table_.has(name); }
  const std::vector<TensorInfo>& tensors() const override { return table_.all(); }
  at::Tensor read(const std::string& name) override {
    const auto position = table_.find(name);
    const auto& info = table_.all()[position];
    const auto& place = places_[position];
    if (place.type == at::kBool) check_bools(place, info);
    return tensor_over(place.file, place.begin, info.shape, place.type);
  }

 private:
  struct Place {
    std::shared_ptr<MappedFile> file;
    std::uint64_t begin;
    at::ScalarType type;
  };
  /// A bool that is neither 0 nor 1 is undefined behaviour in whatever computes with it.
  static void check_bools(const Place& place, const TensorInfo& info) {
    const auto* bytes = place.file->data() + place.begin;
    if (std::any_of(bytes, bytes + info.bytes, [](std::byte byte) { return byte > std::byte{1}; }))
      fail(
          "{}: tensor '{}' holds bytes that are neither true nor false; the file is damaged, fetch "
          "it again",
          place.file->path().string(), info.name);
  }
  TensorTable table_;
  std::vector<Place> places_;
};

/// {tensor: the file that holds it}
std::map<std::string, std::string> read_weight_map(const fs::path& index) {
  const auto text = read_json(index);
  const auto map = text.find("weight_map");
  if (map == text.end() || !map->is_object() || map->empty())
    fail("{}: has no \"weight_map\", which assigns tensors to files", index.string());
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() ||
        fs::path(file.get<std::string>()).filename() != file.get<std::string>() ||
        file.get<std::string>().empty())
      fail("{}: the file of tensor '{}' must be the name of a file beside the index",
           index.string(), tensor);
    files[tensor] = file.get<std::string>();
  }
  return files;
}

}  // namespace

std::unique_ptr<WeightSource> open_safetensors(const fs::path& path) {
  const auto file = MappedFile::open(path);
  auto source = std::make_unique<Safetensors>(path);
  for (auto& entry : read_entries(*file)) source->add(file, std::move(entry));
  return source;
}

std::map<std::string, std::string> safetensors_metadata(const fs::path& path) {
  const auto file = MappedFile::open(path);
  const auto metadata =
      parse_header(*file, header_text(*file)).value("__metadata__", json::object());
  std::map<std::string, std::string> texts;
  for (const auto& [key, value] : metadata.items())
    if (value.is_string()) texts[key] = value.get<std::string>();
  return texts;
}

std::unique_ptr<WeightSource> open_safetensors_index(const fs::path& index,
                                                     std::vector<fs::path>* files) {
  auto source = std::make_unique<Safetensors>(index);
  const auto weight_map = read_weight_map(index);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : weight_map) shards.insert(shard);
  for (const auto& shard : shards) {
    const auto path = index.parent_path() / shard;
    if (!fs::exists(path))
      fail("{}: names the weight file '{}', which is not in the same folder; fetch that file too",
           index.string(), shard);
    const auto file = MappedFile::open(path);
    for (auto& entry : read_entries(*file)) source->add_from_shard(file, std::move(entry));
    if (files) files->push_back(path);
  }
  for (const auto& [tensor, shard] : weight_map)
    if (!source->has(tensor))
      fail(
          "{}: says that '{}' holds the tensor '{}', but it does not; index and weights do not "
          "belong "
          "together",
          index.string(), shard, tensor);
  return source;
}

namespace {

/// JSON, and blanks up to a multiple of eight bytes.
std::string header_of(const fs::path& path, const std::vector<TensorToWrite>& tensors,
                      std::map<std::string, std::string> metadata) {
  metadata.emplace("format", "pt");
  nlohmann::ordered_json header{{"__metadata__", metadata}};
  std::uint64_t end = 0;
  for (const auto& tensor : tensors) {
    const auto& [name, shape, type, read] = tensor;
    const auto dtype = std::ranges::find(dtypes, type, &Dtype::type);
    if (dtype == std::end(dtypes))
      fail("{}: tensor '{}' has a type that cannot be written to safetensors; supported are {}",
           path.string(), name, dtype_names());
    ATTUNE_ASSERT(!header.contains(name), "two tensors named '{}'", name);
    const auto begin = end;
    end += tensor.bytes();
    header[name] = {{"dtype", dtype->name}, {"shape", shape}, {"data_offsets", {begin, end}}};
  }
  auto text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

std::uint64_t TensorToWrite::bytes() const {
  return static_cast<std::uint64_t>(c10::multiply_integers(shape)) * c10::elementSize(dtype);
}

std::vector<TensorToWrite> to_write(
    const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::vector<TensorToWrite> all;
  for (const auto& [name, tensor] : tensors)
    all.push_back(
        {name, tensor.sizes().vec(), tensor.scalar_type(), [tensor = tensor] { return tensor; }});
  return all;
}

void write_safetensors(const fs::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       std::map<std::string, std::string> metadata) {
  stream_safetensors(path, to_write(tensors), std::move(metadata));
}

void stream_safetensors(const fs::path& path, std::vector<TensorToWrite> tensors,
                        std::map<std::string, std::string> metadata) {
  // Wide types first, so that each tensor is aligned for its type; otherwise in the order given.
  std::ranges::stable_sort(tensors, std::greater<>(),
                           [](const auto& tensor) { return c10::elementSize(tensor.dtype); });
  const auto text = header_of(path, tensors, std::move(metadata));
  write_atomically(path, [&](const fs::path& temporary) {
    std::ofstream file(temporary, std::ios::binary);
    const std::uint64_t length = text.size();
    file.write(reinterpret_cast<const char*>(&length), length_bytes)
        .write(text.data(), static_cast<std::streamsize>(text.size()));
    for (const auto& tensor : tensors) {
      const auto plain = tensor.read().cpu().contiguous();
      file.write(static_cast<const char*>(plain.const_data_ptr()),
                 static_cast<std::streamsize>(plain.nbytes()));
    }
    file.flush();
    if (!file) fail("{}: cannot be written ({})", path.string(), std::strerror(errno));
  });
}

}  // namespace attune
