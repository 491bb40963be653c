// Special tokens as the files of a model name them: by text in tokenizer_config.json, by id in
// config.json, generation_config.json and GGUF.
#pragma once
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace attune {

/// Token ids under a key: an integer, or a list of them. Empty when the key is absent, null or
/// something else.
std::vector<std::int64_t> token_ids(const nlohmann::json& object, const std::string& key);

/// The text of a token of tokenizer_config.json: "</s>", or {"content": "</s>", ...}. "" when there
/// is none.
std::string special_token(const nlohmann::json& tokenizer_config, const std::string& key);

/// The text of token `id` in a tokenizer.json. Absent when there is no such token.
std::optional<std::string> token_text(const nlohmann::json& tokenizer, std::int64_t id);

/// The id of the token of this text in a tokenizer.json. Absent when there is none.
std::optional<std::int64_t> token_id(const nlohmann::json& tokenizer, const std::string& text);

/// Whether a tokenizer.json has a token of this text.
bool has_token(const nlohmann::json& tokenizer, const std::string& text);

/// tokenizer_config.json with the special tokens that transformers' class takes, as far as the
/// tokenizer has them.
nlohmann::json with_special_tokens(nlohmann::json tokenizer_config,
                                   const std::map<std::string, std::string>& tokens,
                                   const nlohmann::json& tokenizer);

/// The special tokens of a GGUF file's metadata as tokenizer_config.json names them.
std::map<std::string, std::string> special_tokens_of_gguf(const nlohmann::json& metadata);

/// generation_config.json of a GGUF file: bos, pad, and every end of text: eos, end of turn (eot),
/// end of message (eom).
nlohmann::json generation_config_from_gguf(const nlohmann::json& metadata);

}  // namespace attune
