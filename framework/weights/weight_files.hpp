// Selection of a folder's weight files, as in transformers' AutoModel.
#pragma once
#include <attune/weights.hpp>

#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <vector>

namespace attune::weights {

/// Opens the weights of a folder with a config.json. The first of these, in transformers' order:
/// the file that config.json names in transformers_weights, model.safetensors, the files listed in
/// model.safetensors.index.json. Other files are ignored. files: receives the weight files. Error
/// with advice if transformers would load pickled weights, apply an adapter in the folder,
/// dequantise, or find no weights.
std::unique_ptr<WeightSource> open_folder_weights(const std::filesystem::path& folder,
                                                  const nlohmann::json& config,
                                                  std::vector<std::filesystem::path>& files);

/// The GGUF model of a folder without config.json: its only .gguf file, or the first part of its
/// only split model. Error if there are none or several; it describes the folder and suggests a
/// path.
std::filesystem::path only_gguf(const std::filesystem::path& folder);

/// "; this is a folder of the Hugging Face cache: name PATH" if it is one, or the cache itself;
/// otherwise "".
std::string cached_snapshot(const std::filesystem::path& folder);
/// Whether the folder contains a .gguf file.
bool holds_gguf(const std::filesystem::path& folder);

}  // namespace attune::weights
