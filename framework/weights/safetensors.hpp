// safetensors files: 8 bytes of header length, a JSON header {name: {dtype, shape, data_offsets}},
// and the concatenated tensors. https://github.com/huggingface/safetensors#format
#pragma once
#include <attune/weights.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace attune {

/// Opens a file. Types: F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL. Tensors are views of the mapped
/// file. Error if the header does not match the file.
std::unique_ptr<WeightSource> open_safetensors(const std::filesystem::path& path);

/// The header's __metadata__ texts.
std::map<std::string, std::string> safetensors_metadata(const std::filesystem::path& path);

/// Opens the files of a model.safetensors.index.json. As in transformers, provides every tensor of
/// every file in "weight_map". Error if a listed file or tensor is missing, or if two files hold
/// different tensors of the same name. files: if not null, the weight files are appended.
std::unique_ptr<WeightSource> open_safetensors_index(
    const std::filesystem::path& index, std::vector<std::filesystem::path>* files = nullptr);

/// A tensor that is read only when it is written.
struct TensorToWrite {
  std::string name;
  std::vector<std::int64_t> shape;
  at::ScalarType dtype;
  std::function<at::Tensor()> read;  // returns a tensor of that shape and dtype

  std::uint64_t bytes() const;
};
std::vector<TensorToWrite> to_write(const std::vector<std::pair<std::string, at::Tensor>>& tensors);

/// Writes a file atomically, with at most one tensor of `read` in memory at a time. Wide dtypes
/// come first. Otherwise as write_safetensors().
void stream_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                        std::map<std::string, std::string> metadata = {});

/// Writes a file atomically. Tensors may be on any device and non-contiguous; tied tensors are
/// stored once per name. Adds "format": "pt" to the metadata, which transformers requires.
void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       std::map<std::string, std::string> metadata = {});

}  // namespace attune
