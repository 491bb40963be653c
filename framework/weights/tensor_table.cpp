#include "weights/tensor_table.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <attune/error.hpp>
#include <fmt/ranges.h>

#include <cstring>
#include <limits>

#include "core/files.hpp"
#include "core/names.hpp"

namespace attune::weights {

void TensorTable::add(TensorInfo info) {
  if (!positions_.emplace(info.name, all_.size()).second)
    fail("{}: contains two tensors named '{}'; the file is damaged, fetch it again",
         origin_.string(), info.name);
  all_.push_back(std::move(info));
}

std::size_t TensorTable::find(const std::string& name) const {
  if (const auto found = positions_.find(name); found != positions_.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& info : all_) names.push_back(info.name);
  fail("{}: has no tensor '{}'{}", origin_.string(), name, did_you_mean(name, names));
}

std::optional<std::uint64_t> element_count(const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (const auto size : shape)
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) return std::nullopt;
  return static_cast<std::uint64_t>(count);
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

void refuse_stand_in(const MappedFile& file) {
  constexpr std::string_view start = "version https://git-lfs.github.com/spec/";
  if (file.size() < start.size() || file.read(0, start.size()) != start) return;
  fail("{}: is a Git LFS pointer instead of the file; fetch the file with 'git lfs pull'",
       file.path().string());
}

at::Tensor tensor_over(const std::shared_ptr<MappedFile>& file, std::uint64_t offset,
                       const std::vector<std::int64_t>& shape, at::ScalarType type) {
  const auto count = element_count(shape);
  const auto size = at::elementSize(type);
  ATTUNE_ASSERT(count && offset <= file->size() && *count <= (file->size() - offset) / size,
                "{} at {}", shape_text(shape), offset);
  void* data = file->data() + offset;
  if (*count > 0 && reinterpret_cast<std::uintptr_t>(data) % size == 0)
    return at::from_blob(data, shape, [file](void*) {}, at::TensorOptions(type));
  auto copy = at::empty(shape, type);
  if (*count > 0) std::memcpy(copy.mutable_data_ptr(), data, *count * size);
  return copy;
}

}  // namespace attune::weights
