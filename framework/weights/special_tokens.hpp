// Special tokens as the files of a model name them: by text in tokenizer_config.json, by id in config.json, generation_config.json and GGUF.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace attune {

/// Token ids under a key: an integer, or a list of them. Empty when the key is absent, null or something else.
std::vector<std::int64_t> token_ids(const nlohmann::json& object, const std::string& key);

/// The text of a token of tokenizer_config.json: "</s>", or {"content": "</s>", ...}. "" when there is none.
std::string special_token(const nlohmann::json& tokenizer_config, const std::string& key);

/// The text of token `id` in a tokenizer.json. Absent when there is no such token.
std::optional<std::string> token_text(const nlohmann::json& tokenizer, std::int64_t id);

/// Whether a tokenizer.json has a token of this text.
bool has_token(const nlohmann::json& tokenizer, const std::string& text);

/// tokenizer_config.json, completed by special_tokens_map.json: transformers reads both, the former first.
nlohmann::json with_special_tokens_map(nlohmann::json tokenizer_config, const nlohmann::json& special_tokens_map);

/// The special tokens of a GGUF file's metadata as tokenizer_config.json names them.
nlohmann::json tokenizer_config_from_gguf(const nlohmann::json& metadata);

/// The same as generation_config.json: bos, pad, and every end of text: eos, end of turn (eot), end of message (eom).
nlohmann::json generation_config_from_gguf(const nlohmann::json& metadata);

}  // namespace attune
