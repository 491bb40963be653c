// Where tensors come from: safetensors, GGUF, a torch state_dict, or another rank. Read when asked
// for.
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
  std::string stored;       // as the file says: "F32", "BF16", "Q4_1"
  std::uint64_t bytes = 0;  // in the file
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  /// In the file's order; names as the model's config expects them.
  virtual const std::vector<TensorInfo>& tensors() const = 0;
  /// A writable CPU tensor: float types keep their type, quantized ones come as float32. Unknown
  /// name: Error with the nearest.
  virtual at::Tensor read(const std::string& name) = 0;

  bool contains(const std::string& name) const;
};

}  // namespace attune
ATTUNE_API_END
