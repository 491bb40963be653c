// A model's tokenizer files: a Hugging Face folder with or without a model, a tokenizer.json, or a
// GGUF file of any architecture.
#pragma once
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "text/tokenizer_folder.hpp"

namespace attune {

/// Reads the tokenizer.json of a folder with a tokenizer or one GGUF file, of a .gguf file with or
/// without weights, or the given tokenizer.json itself.
nlohmann::json open_tokenizer(const std::filesystem::path& path);

/// Reads a folder's tokenizer as transformers' AutoTokenizer does.
text::FolderTokenizer read_tokenizer(const std::filesystem::path& folder);

/// Special tokens by their chat-template names ("bos_token"), for a path that open_tokenizer
/// accepts. A tokenizer.json alone has none.
std::map<std::string, std::string> special_tokens_of(const std::filesystem::path& place);

}  // namespace attune
