// A model as it lies on disk: a Hugging Face folder or a GGUF file. export_folder.hpp writes one.
#pragma once
#include <attune/weights.hpp>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace attune {

struct ModelFiles {
  std::filesystem::path path;
  nlohmann::json config;  // config.json, or made from the GGUF metadata
  // as tokenizer.json; null when there is none, or none that can be used
  nlohmann::json tokenizer;
  // why it cannot be used: an error for whoever needs it, which not every model's use does
  std::string tokenizer_problem;
  // tokenizer_config.json with special_tokens_map.json, or made from the GGUF metadata
  nlohmann::json tokenizer_config;
  std::string chat_template;  // Jinja; "" when there is none
  nlohmann::json generation;  // generation_config.json; an empty object when there is none
  std::string licence;        // as the model names it: "apache-2.0"; "" when it does not
  std::unique_ptr<WeightSource> weights;
  std::vector<std::filesystem::path> weight_files;

  /// A folder with config.json and *.safetensors, a .gguf file, or a folder whose only model is one
  /// .gguf file.
  static ModelFiles open(const std::filesystem::path& path);
};

/// The model's tokenizer. Error when it has none, or none that can be used.
const nlohmann::json& tokenizer_of(const ModelFiles& files);

/// Ids of a tokenizer.json run from 0 to this, added tokens included.
std::int64_t tokenizer_size(const nlohmann::json& tokenizer);

/// Error when the tokenizer gives ids that the token embedding has no row for.
void check_tokenizer(const std::filesystem::path& model, std::int64_t tokenizer_size,
                     std::int64_t vocabulary);

/// Of the one weight file (as sha256sum prints it); of several, over the lines "<sha256>  <file
/// name>\n" in order.
std::string weights_sha256(const ModelFiles& files);

}  // namespace attune
