// The tokenizer of a model: a Hugging Face folder with or without a model in it, a tokenizer.json,
// or a GGUF file of any architecture.
#pragma once
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "text/tokenizer_folder.hpp"

namespace attune {

/// The tokenizer.json of a folder that holds a tokenizer or one GGUF file, a .gguf file with or
/// without weights, or a tokenizer.json alone.
nlohmann::json open_tokenizer(const std::filesystem::path& path);

/// The tokenizer of a folder as transformers' AutoTokenizer reads it.
text::FolderTokenizer read_tokenizer(const std::filesystem::path& folder);

/// Special tokens by the names that chat templates know ("bos_token"), of a place that
/// open_tokenizer reads. A tokenizer.json alone names none.
std::map<std::string, std::string> special_tokens_of(const std::filesystem::path& place);

}  // namespace attune
