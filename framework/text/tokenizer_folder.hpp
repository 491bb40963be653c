// The tokenizer of a model folder as transformers' AutoTokenizer (version 5.23) reads it, written
// as one tokenizer.json.
#pragma once
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "text/tokenizer_settings.hpp"

namespace attune::text {

struct TokenizerFolder {
  nlohmann::json config;          // config.json; null: there is none
  nlohmann::json tokenizer_json;  // null: there is none
  SettingsFiles settings;
  /// The content of another file by its name; nothing where there is none.
  std::function<std::optional<std::string>(const std::string& name)> read;
};

struct FolderTokenizer {
  nlohmann::json json;  // as a tokenizer.json; null when the folder holds no vocabulary
  /// {"bos_token", "<s>"}: what the files and the class name, also where the vocabulary lacks it;
  /// chat templates read them by these names.
  std::map<std::string, std::string> special_tokens;
};

/// Error that names the file for a tokenizer that cannot be read as AutoTokenizer reads it.
FolderTokenizer read_tokenizer_folder(TokenizerFolder folder);

}  // namespace attune::text
