#include "checkpoint/state_file.hpp"

#include <ATen/ATen.h>
#include <attune/error.hpp>

#include <algorithm>
#include <cstring>
#include <thread>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "hdf5/hdf5.hpp"

namespace attune::checkpoint {
namespace fs = std::filesystem;
namespace {

/// Written in slices, so that who reads the data meanwhile never waits long for HDF5's lock.
constexpr std::int64_t slice_bytes = 4 << 20;

void write_in_slices(const hdf5::Dataset& dataset, const at::Tensor& tensor) {
  if (tensor.dim() == 0) return dataset.write(0, tensor);
  const auto rows =
      std::max<std::int64_t>(1, slice_bytes / std::max<std::int64_t>(1, dataset.row_bytes()));
  for (std::int64_t first = 0; first < tensor.size(0); first += rows) {
    dataset.write(first, tensor.narrow(0, first, std::min(rows, tensor.size(0) - first)));
    std::this_thread::yield();
  }
}

/// Members 000000, 000001, ... of a group, each with its name as an attribute.
class EntryWriter {
 public:
  EntryWriter(const hdf5::Group& root, const std::string& group)
      : group_(root.create_group(group)) {}
  void add(const std::string& name, const at::Tensor& tensor) {
    write_in_slices(create(name, tensor), tensor);
  }
  /// A piece says what of.
  void add(const parallel::Shard& shard) {
    const auto tensor = shard.tensor.detach().cpu().contiguous();
    const auto dataset = create(shard.name, tensor);
    if (!shard.is_whole()) {
      dataset.attributes().set("offset", shard.offset);
      dataset.attributes().set("shape",
                               std::vector<double>(shard.shape.begin(), shard.shape.end()));
    }
    write_in_slices(dataset, tensor);
  }

 private:
  hdf5::Dataset create(const std::string& name, const at::Tensor& tensor) {
    auto dataset = group_.create_dataset(fmt::format("{:06}", count_++), tensor.scalar_type(),
                                         tensor.sizes().vec(), 1 << 20);
    dataset.attributes().set("name", name);
    return dataset;
  }

  hdf5::Group group_;
  std::int64_t count_ = 0;
};

/// As EntryWriter has written it, without values.
parallel::Shard piece_of(const std::string& name, const hdf5::Dataset& dataset) {
  dataset.check_size();
  parallel::Shard piece(
      name, at::empty(dataset.shape(), at::TensorOptions(dataset.dtype()).device(at::kMeta)));
  const auto attributes = dataset.attributes();
  if (!attributes.has("offset")) return piece;
  piece.offset = attributes.integer("offset");
  piece.shape.clear();
  for (const auto size : attributes.numbers("shape")) {
    constexpr double most = 1e15;  // of which a double and an int64 know every whole number
    if (!(size >= 0 && size <= most))
      fail("{}: is a piece of a tensor of an impossible shape; resume from another checkpoint",
           dataset.place().text());
    piece.shape.push_back(static_cast<std::int64_t>(size));
  }
  return piece;
}

at::Tensor to_bytes(const std::string& text) {
  auto bytes = at::empty({static_cast<std::int64_t>(text.size())}, at::kByte);
  if (!text.empty()) std::memcpy(bytes.data_ptr(), text.data(), text.size());
  return bytes;
}

std::string to_text(const at::Tensor& bytes) {
  return {static_cast<const char*>(bytes.const_data_ptr()), bytes.nbytes()};
}

/// use(name, dataset) for each, in the order they were written.
template <class Use>
void for_each_entry(const hdf5::Group& root, const std::string& group_name, Use use) {
  const auto group = root.group(group_name);
  auto keys = group.members();
  std::sort(keys.begin(), keys.end(), [](const auto& a, const auto& b) {
    return std::pair(a.size(), a) < std::pair(b.size(), b);
  });
  for (const auto& key : keys) {
    auto dataset = group.dataset(key);
    const auto name = dataset.attributes().text("name");
    use(name, std::move(dataset));
  }
}

/// Small things are checked before they are read; for tensors hdf5::Dataset does that against the
/// file's size.
void expect(const hdf5::Dataset& dataset, at::ScalarType dtype, std::size_t dimensions) {
  if (dataset.dtype() != dtype || dataset.shape().size() != dimensions)
    fail(
        "{}: has unexpected content for a checkpoint; the file was not written by Attune, so "
        "resume from another checkpoint",
        dataset.place().text());
}

}  // namespace

Part write_state(const fs::path& path, std::int64_t step, const Snapshot& snapshot) {
  const auto root =
      hdf5::create_in_memory(path.string(), snapshot.bytes() + snapshot.bytes() / 50 + (1 << 20));
  root.attributes().set("format", format_name);
  root.attributes().set("version", format_version);
  root.attributes().set("step", step);
  EntryWriter tensors(root, "tensors");
  EntryWriter texts(root, "texts");
  EntryWriter numbers(root, "numbers");
  for (const auto& shard : snapshot.own) tensors.add(shard);
  for (const auto& [name, text] : snapshot.texts) texts.add(name, to_bytes(text));
  for (const auto& [name, number] : snapshot.numbers)
    numbers.add(name, at::scalar_tensor(number, at::kLong));
  const auto bytes = hdf5::image(root);
  write_bytes(path, bytes);
  return {path.filename().string(), bytes.size(), Sha256().add(bytes.data(), bytes.size()).hex()};
}

StateFile::StateFile(const fs::path& path) {
  const auto root = hdf5::open_file(path);
  if (!root.attributes().has("format") || root.attributes().text("format") != format_name)
    fail(
        "{}: is not a checkpoint of Attune (attribute 'format' is not \"{}\"); give the run folder "
        "that Attune wrote",
        path.string(), format_name);
  if (const auto version = root.attributes().integer("version"); version != format_version)
    fail(
        "{}: has format version {}, and this Attune reads version {}; resume with the Attune that "
        "wrote it",
        path.string(), version, format_version);
  step_ = root.attributes().integer("step");
  for_each_entry(root, "tensors", [&](const auto& name, hdf5::Dataset dataset) {
    pieces_.push_back(piece_of(name, dataset));
    tensors_.push_back(std::move(dataset));
  });
  for_each_entry(root, "texts", [&](const auto& name, const auto& dataset) {
    expect(dataset, at::kByte, 1);
    texts_[name] = to_text(dataset.read());
  });
  for_each_entry(root, "numbers", [&](const auto& name, const auto& dataset) {
    expect(dataset, at::kLong, 0);
    numbers_[name] = dataset.read().template item<std::int64_t>();
  });
}

}  // namespace attune::checkpoint
