// Sources of weights: safetensors, GGUF, a torch state_dict, or another rank. Tensors are read on
// demand.
#pragma once
#include <attune/api.hpp>
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

struct TensorInfo {
  std::string name;
  std::vector<std::int64_t> shape;
  std::string stored;       // storage type in the file: "F32", "BF16", "Q4_1"
  std::uint64_t bytes = 0;  // in the file
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  /// In the order of the file, with the names that the model's config implies.
  virtual const std::vector<TensorInfo>& tensors() const = 0;
  /// Reads a tensor into writable CPU memory. Floating-point types are kept; quantised types are
  /// converted to float32. Error for an unknown name; it suggests the nearest.
  virtual at::Tensor read(const std::string& name) = 0;
  /// The same for a parameter on the host: contiguous, in this dtype, and transposed if the file
  /// holds it so. Ranks of a node may share its memory: what one of them writes there, the others
  /// do not see. Error if the parameter is floating-point and the file holds codes.
  virtual at::Tensor read_as(const std::string& name, at::ScalarType dtype, bool is_transposed);

  bool contains(const std::string& name) const;
};

}  // namespace attune
ATTUNE_API_END
