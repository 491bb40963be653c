// GGUF, llama.cpp's file format, versions 2 and 3, little-endian:
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once
#include <attune/weights.hpp>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "weights/tensor_table.hpp"

namespace attune {
namespace weights {
struct GgmlEncoding;
}

/// File name of one part of a split model: "qwen-q4_k_m-00002-of-00003.gguf".
struct GgufPartName {
  std::string stem;  // "qwen-q4_k_m"
  // from 1
  std::uint64_t number;
  std::uint64_t count;
  static std::optional<GgufPartName> parse(const std::string& file_name);
  std::string file_of(std::uint64_t part) const;
};

/// Names are those of the file; shapes are in PyTorch's order (slowest dimension first). F32, F64,
/// F16 and BF16 tensors are views of the mapped file. Quantised tensors are dequantised to float32
/// at each read.
class GgufFile final : public WeightSource {
 public:
  /// The first file of a split model opens all its parts. Error if a file is not GGUF, has an
  /// unsupported tensor type, or has inconsistent counts, lengths or offsets.
  explicit GgufFile(const std::filesystem::path& path);

  /// All metadata by key; GGUF arrays are JSON arrays.
  const nlohmann::json& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return path_; }
  /// All files of the model, in order.
  const std::vector<std::filesystem::path>& files() const { return files_; }
  const std::vector<TensorInfo>& tensors() const override { return table_.all(); }
  at::Tensor read(const std::string& name) override { return values(name); }
  at::Tensor values(const std::string& name) const;

 private:
  struct Place {
    std::shared_ptr<MappedFile> file;
    const weights::GgmlEncoding* encoding;
    std::uint64_t begin;  // from the start of the file
  };
  std::filesystem::path path_;
  std::vector<std::filesystem::path> files_;
  nlohmann::json metadata_;
  weights::TensorTable table_;
  std::vector<Place> places_;
};

/// Only the metadata, also of files with unsupported tensor types or without tensors.
nlohmann::json gguf_metadata(const std::filesystem::path& path);

}  // namespace attune
