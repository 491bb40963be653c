// Construction of a tokenizer.json's "added_tokens", with ids assigned as by the `tokenizers`
// library.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace attune::text {

/// An entry of "added_tokens" without its id, with the default properties of a special or normal
/// token.
nlohmann::json added_token(const std::string& content, bool special);
/// The same from a JSON object in which all keys except "content" are optional. where: name in
/// errors ("tokenizer_config.json").
nlohmann::json added_token_from(const nlohmann::json& json, bool special, const std::string& where);

class AddedTokenList {
 public:
  /// model: the "model" object of a tokenizer.json.
  explicit AddedTokenList(const nlohmann::json& model);

  /// Adds a token. A token of the vocabulary keeps its id; an already added one gets the new
  /// properties; any other gets the next free id.
  void add(const nlohmann::json& token);
  bool contains(const std::string& content) const { return added_.contains(content); }
  /// Whether a token with this text and these properties was added.
  bool contains_equal(const nlohmann::json& token) const;
  std::optional<std::int64_t> id(const std::string& content) const;
  std::int64_t vocabulary_size() const { return vocabulary_size_; }
  nlohmann::json json() const;

 private:
  std::int64_t next_id() const;
  std::unordered_map<std::string, std::int64_t> vocabulary_;
  std::unordered_map<std::string, std::pair<std::int64_t, nlohmann::json>> added_;
  std::int64_t vocabulary_size_ = 0;
  std::int64_t highest_ = -1;  // largest id of an added token
};

}  // namespace attune::text
