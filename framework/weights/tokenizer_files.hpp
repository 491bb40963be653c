// The tokenizer of a model: a Hugging Face folder with or without a model in it, a tokenizer.json, or a GGUF file of any architecture.
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace attune {

struct TokenizerFiles {
  nlohmann::json tokenizer;   // as tokenizer.json; null when there is none
  std::string chat_template;  // Jinja; "" when there is none
};

/// A folder that holds a tokenizer or one GGUF file, a .gguf file with or without weights, or a tokenizer.json alone.
TokenizerFiles open_tokenizer(const std::filesystem::path& path);

/// The tokenizer of a folder as transformers' AutoTokenizer reads it, written as a tokenizer.json; null when there is none.
nlohmann::json read_tokenizer(const std::filesystem::path& folder);

/// chat_template.jinja, or "chat_template" of tokenizer_config.json: a text, or a list of named ones of which "default" is meant.
std::string read_chat_template(const std::filesystem::path& folder);

}  // namespace attune
