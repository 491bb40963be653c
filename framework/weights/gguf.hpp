// GGUF, the format of llama.cpp: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
#pragma once
#include <attune/weights.hpp>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "weights/tensor_table.hpp"

namespace attune {
namespace weights {
struct Encoding;
}

/// Names and shapes are as in the file, but with the sizes in PyTorch's order (slowest first).
/// F32, F16 and BF16 tensors lie over the mapped file; Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 are dequantized to float32 at each read.
class GgufFile final : public WeightSource {
 public:
  /// Error when it is not GGUF, holds a tensor type that is not supported, or its counts, lengths and offsets are not true to the file.
  explicit GgufFile(const std::filesystem::path& path);

  /// Every key with its value; arrays as arrays.
  const nlohmann::json& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return path_; }
  const std::vector<TensorInfo>& tensors() const override { return table_.all(); }
  at::Tensor read(const std::string& name) override;

 private:
  struct Place {
    const weights::Encoding* encoding;
    std::uint64_t begin;  // from the start of the file
  };
  std::filesystem::path path_;
  std::shared_ptr<MappedFile> file_;
  nlohmann::json metadata_;
  weights::TensorTable table_;
  std::vector<Place> places_;
};

/// The keys alone, of a file whose tensors may be of any type, or absent.
nlohmann::json gguf_metadata(const std::filesystem::path& path);

}  // namespace attune
