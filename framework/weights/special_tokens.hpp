// Special tokens in model files: by text in tokenizer_config.json, by id in config.json,
// generation_config.json and GGUF.
#pragma once
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace attune {

/// Token ids under a key, an integer or a list. Empty if the key is absent, null or of another
/// type.
std::vector<std::int64_t> token_ids(const nlohmann::json& object, const std::string& key);

/// Text of a token in tokenizer_config.json: "</s>", or {"content": "</s>", ...}. "" if there is
/// none.
std::string special_token(const nlohmann::json& tokenizer_config, const std::string& key);

/// Text of token `id` in a tokenizer.json. Absent if there is no such token.
std::optional<std::string> token_text(const nlohmann::json& tokenizer, std::int64_t id);

/// Id of the token with this text in a tokenizer.json. Absent if there is none.
std::optional<std::int64_t> token_id(const nlohmann::json& tokenizer, const std::string& text);

/// Whether a tokenizer.json has a token with this text.
bool has_token(const nlohmann::json& tokenizer, const std::string& text);

/// Adds the special tokens that transformers' tokenizer class expects to tokenizer_config.json, if
/// the tokenizer has them.
nlohmann::json with_special_tokens(nlohmann::json tokenizer_config,
                                   const std::map<std::string, std::string>& tokens,
                                   const nlohmann::json& tokenizer);

/// Special tokens of GGUF metadata, by their names in tokenizer_config.json.
std::map<std::string, std::string> special_tokens_of_gguf(const nlohmann::json& metadata);

/// generation_config.json for a GGUF file: bos, pad, and all end-of-text tokens: eos, end of turn
/// (eot), end of message (eom).
nlohmann::json generation_config_from_gguf(const nlohmann::json& metadata);

}  // namespace attune
