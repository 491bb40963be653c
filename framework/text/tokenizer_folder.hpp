// Reads a model folder's tokenizer as transformers' AutoTokenizer (version 5.23) does, and converts
// it to a single tokenizer.json.
#pragma once
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "text/tokenizer_settings.hpp"

namespace attune::text {

struct TokenizerFolder {
  nlohmann::json config;          // config.json, or null
  nlohmann::json tokenizer_json;  // or null
  SettingsFiles settings;
  /// Returns the content of another file; absent if it does not exist.
  std::function<std::optional<std::string>(const std::string& name)> read;
};

struct FolderTokenizer {
  nlohmann::json json;  // tokenizer.json; null if the folder has no vocabulary
  /// {"bos_token", "<s>"}: special tokens of the files and the class, including those that the
  /// vocabulary lacks. Chat templates use these names.
  std::map<std::string, std::string> special_tokens;
};

/// Error that names the file if the tokenizer cannot be read as by AutoTokenizer.
FolderTokenizer read_tokenizer_folder(TokenizerFolder folder);

}  // namespace attune::text
