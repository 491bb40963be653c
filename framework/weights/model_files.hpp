// A model on disk: a Hugging Face folder or a GGUF file. export_folder.hpp writes such folders.
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
  nlohmann::json config;  // config.json, or derived from the GGUF metadata
  // tokenizer.json; null if there is none or it is unusable
  nlohmann::json tokenizer;
  // why the tokenizer is unusable; an error only for uses that need it
  std::string tokenizer_problem;
  // tokenizer_config.json and special_tokens_map.json, or derived from the GGUF metadata
  nlohmann::json tokenizer_config;
  std::string chat_template;  // Jinja; "" if there is none
  nlohmann::json generation;  // generation_config.json; {} if there is none
  std::string licence;        // name given by the model: "apache-2.0"; "" if it gives none
  std::unique_ptr<WeightSource> weights;
  std::vector<std::filesystem::path> weight_files;

  /// Opens a folder with config.json and *.safetensors, a .gguf file, or a folder whose only model
  /// is one .gguf file.
  static ModelFiles open(const std::filesystem::path& path);
};

/// The model's tokenizer. Error if it has none or it is unusable.
const nlohmann::json& tokenizer_of(const ModelFiles& files);

/// Number of ids of a tokenizer.json, including added tokens.
std::int64_t tokenizer_size(const nlohmann::json& tokenizer);

/// Error if the tokenizer has ids without a row in the token embedding.
void check_tokenizer(const std::filesystem::path& model, std::int64_t tokenizer_size,
                     std::int64_t vocabulary);

/// SHA-256 of the weight file (as by sha256sum). For several files: of the lines "<sha256>  <file
/// name>\n" in order.
std::string weights_sha256(const ModelFiles& files);

}  // namespace attune
