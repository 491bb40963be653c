// Writes a model folder that transformers loads: the exported weights, and every file of the source
// folder that is still true of them.
#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace attune {

struct ModelFiles;
struct TensorToWrite;  // weights/safetensors.hpp

/// How the conversations of the training are written, where it differs from the source's own chat
/// template.
struct TrainedChat {
  // an empty text: it does not differ
  std::string jinja;
  std::string tool_use;
  std::optional<std::int64_t> end;  // the token that ends an answer
  // it becomes the folder's chat template; else it lies beside it, under trained_chat_template
  bool replaces = false;
};
constexpr const char* trained_chat_template = "trained_chat_template.jinja";
/// The file for it.
std::string chat_file(const TrainedChat& chat);

/// Writes model.safetensors and config.json, and copies tokenizer, chat template, generation
/// defaults, image processor and licence from `folder`, where the source was opened. Makes what
/// AutoTokenizer and pipelines need and the source lacks. `config`: of the exported model; the type
/// it names becomes that of the tensors. A chat template that replaces the source's brings its
/// closing mark as an end of text. The folder appears whole or not at all; Error when the target is
/// there and not empty.
void export_model_folder(const std::filesystem::path& to, const ModelFiles& source,
                         const std::filesystem::path& folder, nlohmann::json config,
                         const std::vector<TensorToWrite>& tensors, const TrainedChat& chat = {});

}  // namespace attune
