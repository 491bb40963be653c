// Export of a model folder for transformers: the weights, and those files of the source folder that
// remain valid.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace attune {

struct ModelFiles;
struct TensorToWrite;  // weights/safetensors.hpp

/// Chat template of the training, if it differs from the source's own template.
struct TrainedChat {
  // empty: does not differ
  std::string jinja;
  std::string tool_use;
  std::optional<std::int64_t> end;  // token that ends an answer
  // true: becomes the folder's chat template; false: is saved beside it as trained_chat_template
  bool replaces = false;
};
constexpr const char* trained_chat_template = "trained_chat_template.jinja";
/// Name of the file for it.
std::string chat_file(const TrainedChat& chat);

/// Bytes of tensors in a file of weights, at most, unless it is of a single tensor: as
/// transformers 5 by default.
inline constexpr std::uint64_t largest_weight_file = 50'000'000'000;

/// Writes model.safetensors, or several files and their model.safetensors.index.json, and
/// config.json, and copies tokenizer, chat template, generation
/// defaults, image processor and licence from `folder`, the source's folder. Adds files that
/// AutoTokenizer and pipelines need and the source lacks. `config`: config of the exported model;
/// its dtype is used for the tensors. A replacing chat template adds its end mark to the
/// end-of-text tokens. The folder is written atomically. Error if the target exists and is not
/// empty.
void export_model_folder(const std::filesystem::path& to, const ModelFiles& source,
                         const std::filesystem::path& folder, nlohmann::json config,
                         const std::vector<TensorToWrite>& tensors, const TrainedChat& chat = {},
                         std::uint64_t largest_file = largest_weight_file);

}  // namespace attune
