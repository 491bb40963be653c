// What the file formats share: tensors found by name, sizes that cannot overflow, and tensors that
// lie over a mapped file.
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

/// The tensors of one source, in the file's order, found by name.
class TensorTable {
 public:
  explicit TensorTable(std::filesystem::path origin) : origin_(std::move(origin)) {}
  /// Error when the name is taken.
  void add(TensorInfo info);
  /// Position in all(). Error that gives the nearest name when there is none.
  std::size_t find(const std::string& name) const;
  bool has(const std::string& name) const { return positions_.contains(name); }
  const std::vector<TensorInfo>& all() const { return all_; }

 private:
  std::filesystem::path origin_;
  std::vector<TensorInfo> all_;
  std::unordered_map<std::string, std::size_t> positions_;
};

/// Product of the sizes (1 for a scalar); absent when it does not fit an int64.
std::optional<std::uint64_t> element_count(const std::vector<std::int64_t>& shape);

/// "[2, 3]"
std::string shape_text(const std::vector<std::int64_t>& shape);

/// Error when the file is what Git LFS leaves in the place of a file that was not fetched.
void refuse_stand_in(const MappedFile& file);

/// The file's bytes from offset on as a tensor that keeps the mapping alive; a copy where they are
/// not aligned for the type. The range must lie within the file.
at::Tensor tensor_over(const std::shared_ptr<MappedFile>& file, std::uint64_t offset,
                       const std::vector<std::int64_t>& shape, at::ScalarType type);

}  // namespace attune::weights
