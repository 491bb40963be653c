// The tokenizer of a model: a Hugging Face folder with or without a model in it, a tokenizer.json, or a GGUF file of any architecture.
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace attune {

/// The tokenizer.json of a folder that holds a tokenizer or one GGUF file, a .gguf file with or without weights, or a tokenizer.json alone.
nlohmann::json open_tokenizer(const std::filesystem::path& path);

/// The tokenizer of a folder as transformers' AutoTokenizer reads it, written as a tokenizer.json; null when there is none.
nlohmann::json read_tokenizer(const std::filesystem::path& folder);

}  // namespace attune
