#include "data/hidden.hpp"

#include <ATen/ATen.h>
#include <attune/error.hpp>
#include <unistd.h>
#include <fmt/format.h>

#include <algorithm>

#include "core/files.hpp"
#include "data/store.hpp"

namespace attune {
namespace {

constexpr const char* hidden_format = "attune-hidden";
constexpr const char* hidden_column = "hidden";

}  // namespace

std::shared_ptr<const HiddenStates> HiddenStates::open(const std::filesystem::path& path,
                                                       const std::string& key,
                                                       const MadeBy& made_by) {
  if (!std::filesystem::exists(path)) return nullptr;
  auto root = hdf5::open_file(path);
  const auto attributes = root.attributes();
  if (!attributes.has("format") || attributes.text("format") != hidden_format ||
      attributes.text("key") != key)
    return nullptr;
  std::vector<std::int64_t> shape{-1};
  for (const double size : attributes.numbers("item"))
    shape.push_back(static_cast<std::int64_t>(size));
  return std::shared_ptr<const HiddenStates>(
      new HiddenStates(std::move(shape), made_by, std::make_unique<const Split>(std::move(root))));
}

HiddenStates::HiddenStates(std::vector<std::int64_t> shape, MadeBy made_by,
                           std::unique_ptr<const Split> split)
    : shape_(std::move(shape)), made_by_(made_by), split_(std::move(split)) {}
HiddenStates::~HiddenStates() = default;

std::int64_t HiddenStates::rows() const { return split_->size(); }

at::Tensor HiddenStates::read(std::span<const std::int64_t> rows) const {
  std::vector<at::Tensor> parts;
  for (const auto& sample : split_->read(rows)) parts.push_back(sample.at(hidden_column));
  return at::cat(parts).view(shape_);
}

HiddenWriter::HiddenWriter(std::filesystem::path path, const std::string& key,
                           const at::Tensor& states)
    : path_(std::move(path)), unfinished_(fmt::format("{}.{}", path_.string(), getpid())) {
  std::filesystem::create_directories(path_.parent_path());
  root_ = std::make_unique<hdf5::Group>(hdf5::create_file(unfinished_));
  const std::vector<double> item(states.sizes().begin() + 1, states.sizes().end());
  root_->attributes().set("format", hidden_format);
  root_->attributes().set("key", key);
  root_->attributes().set("item", item);
}

HiddenWriter::~HiddenWriter() {
  std::error_code ignored;
  std::filesystem::remove(unfinished_, ignored);  // there only when finish() was not reached
}

void HiddenWriter::append(const at::Tensor& states, std::span<const std::int64_t> positions) {
  const auto item = states.numel() / std::max<std::int64_t>(1, states.size(0));
  const auto first = offsets_.back();
  for (const auto count : positions) offsets_.push_back(offsets_.back() + count * item);
  ATTUNE_ASSERT(offsets_.back() - first == states.numel(), "{} elements for rows of {}",
                states.numel(), offsets_.back() - first);
  if (!values_) {
    // Rows are read in any order, and a chunk is read whole.
    const auto row_bytes = static_cast<std::int64_t>(states.nbytes() / positions.size());
    values_ = std::make_unique<hdf5::Dataset>(
        root_->create_growing(hidden_column, states.scalar_type(), {},
                              std::clamp<std::int64_t>(row_bytes, 1 << 12, 1 << 16)));
  }
  values_->grow(states.numel());
  values_->write(first, states.flatten());
}

void HiddenWriter::finish() {
  root_->write(std::string(hidden_column) + offsets_suffix,
               at::tensor(at::ArrayRef<std::int64_t>(offsets_)));
  hdf5::flush(*root_);
  values_.reset();
  root_.reset();
  sync_to_disk(unfinished_);
  move_into_place(unfinished_, path_);
}

}  // namespace attune
