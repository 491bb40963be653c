// safetensors: 8 bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, then
// the tensors end to end. https://github.com/huggingface/safetensors#format
#pragma once
#include <attune/weights.hpp>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace attune {

/// F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL. Tensors lie over the mapped file. Error when the header
/// is not true to the file.
std::unique_ptr<WeightSource> open_safetensors(const std::filesystem::path& path);

/// The texts that such a file holds beside its tensors.
std::map<std::string, std::string> safetensors_metadata(const std::filesystem::path& path);

/// Many files through model.safetensors.index.json: every tensor of every file that its
/// "weight_map" lists, as transformers reads them. Error when a listed file or tensor is missing,
/// or two files hold different tensors of one name. files: where given, the weight files are
/// appended to it.
std::unique_ptr<WeightSource> open_safetensors_index(
    const std::filesystem::path& index, std::vector<std::filesystem::path>* files = nullptr);

/// A tensor that is read when it is written.
struct TensorToWrite {
  std::string name;
  std::vector<std::int64_t> shape;
  at::ScalarType dtype;
  std::function<at::Tensor()> read;  // of that shape and dtype
};
std::vector<TensorToWrite> to_write(const std::vector<std::pair<std::string, at::Tensor>>& tensors);

/// Writes the file whole or not at all, tensor by tensor: no more than one of those read is held.
/// Wide types come first. Otherwise as below.
void stream_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                        std::map<std::string, std::string> metadata = {});

/// Writes the file whole or not at all. Tensors may be on any device and need not be contiguous;
/// tied ones are stored as often as given. "format": "pt" is added to the metadata, which
/// transformers asks for.
void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       std::map<std::string, std::string> metadata = {});

}  // namespace attune
