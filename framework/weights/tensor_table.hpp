// Helpers for weight file formats: lookup by name, overflow-safe sizes, and tensors as views of a
// mapped file.
#pragma once
#include <attune/weights.hpp>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace attune {
class MappedFile;
}

namespace attune::weights {

/// The tensors of one source, in file order, with lookup by name.
class TensorTable {
 public:
  explicit TensorTable(std::filesystem::path origin) : origin_(std::move(origin)) {}
  /// Error if the name exists already.
  void add(TensorInfo info);
  /// Index into all(). Error for an unknown name; it suggests the nearest.
  std::size_t find(const std::string& name) const;
  bool has(const std::string& name) const { return positions_.contains(name); }
  const std::vector<TensorInfo>& all() const { return all_; }

 private:
  std::filesystem::path origin_;
  std::vector<TensorInfo> all_;
  std::unordered_map<std::string, std::size_t> positions_;
};

/// Product of the sizes (1 for a scalar); absent if it overflows int64.
std::optional<std::uint64_t> element_count(const std::vector<std::int64_t>& shape);

/// "[2, 3]"
std::string shape_text(const std::vector<std::int64_t>& shape);

/// Error if the file is a Git LFS pointer instead of the actual content.
void refuse_stand_in(const MappedFile& file);

/// A tensor that views the file's bytes from `offset` on and keeps the mapping alive; a copy if
/// they are misaligned for the type. The range must lie within the file.
at::Tensor tensor_over(const std::shared_ptr<MappedFile>& file, std::uint64_t offset,
                       const std::vector<std::int64_t>& shape, at::ScalarType type);

}  // namespace attune::weights
