// Which files of a folder hold a model's weights: those that transformers' AutoModel reads, or
// none.
#pragma once
#include <attune/weights.hpp>

#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <vector>

namespace attune::weights {

/// The weights of a folder with a config.json. Of several files transformers' order decides: the
/// one that config.json names as transformers_weights, else model.safetensors, else the files that
/// model.safetensors.index.json lists. Other files are not looked at. files: those that hold the
/// weights. Error, with the cure, where transformers would read pickled weights, apply an adapter
/// that is beside them, dequantize them, or find nothing.
std::unique_ptr<WeightSource> open_folder_weights(const std::filesystem::path& folder,
                                                  const nlohmann::json& config,
                                                  std::vector<std::filesystem::path>& files);

/// The GGUF model of a folder without config.json: the only .gguf file, or the first part of the
/// only one that is split. Error that says what the folder is, and which path to name instead, when
/// there is none or more than one.
std::filesystem::path only_gguf(const std::filesystem::path& folder);

/// "; this is a folder of the Hugging Face cache: name PATH", where it is one, or the cache itself;
/// "" otherwise.
std::string cached_snapshot(const std::filesystem::path& folder);
/// Whether there is a .gguf file in the folder.
bool holds_gguf(const std::filesystem::path& folder);

}  // namespace attune::weights
