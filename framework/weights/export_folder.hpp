// Writes a model folder that transformers loads: the exported weights, and every file of the source folder that is still true of them.
#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

namespace attune {

struct ModelFiles;

/// Writes model.safetensors and config.json, and copies tokenizer, chat template, generation defaults, image processor and licence from `folder`,
/// where the source was opened. Makes what AutoTokenizer and pipelines need and the source lacks. `config`: of the exported model; the type it
/// names becomes that of the tensors. The folder appears whole or not at all; Error when the target is there and not empty.
void export_model_folder(const std::filesystem::path& to, const ModelFiles& source, const std::filesystem::path& folder, nlohmann::json config,
                         const std::vector<std::pair<std::string, at::Tensor>>& tensors);

}  // namespace attune
