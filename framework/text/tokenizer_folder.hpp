// The tokenizer of a model folder as transformers' AutoTokenizer (version 5.23) reads it, written as one tokenizer.json.
#pragma once
#include <functional>
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

/// Null when the folder holds no vocabulary. Error that names the file for one that cannot be read as AutoTokenizer reads it.
nlohmann::json tokenizer_json_from_folder(TokenizerFolder folder);

}  // namespace attune::text
