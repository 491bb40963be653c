// "added_tokens" of a tokenizer.json while tokens are added to it, with ids as the `tokenizers`
// library gives them.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace attune::text {

/// An entry of "added_tokens" without its id. special: as a special token is by default.
nlohmann::json added_token(const std::string& content, bool special);
/// The same from a JSON object that may lack any key but "content". where: named in errors
/// ("tokenizer_config.json").
nlohmann::json added_token_from(const nlohmann::json& json, bool special, const std::string& where);

class AddedTokenList {
 public:
  /// model: the "model" of a tokenizer.json.
  explicit AddedTokenList(const nlohmann::json& model);

  /// A token of the vocabulary keeps its id; one that was added before gets these properties;
  /// another gets the next free id.
  void add(const nlohmann::json& token);
  bool contains(const std::string& content) const { return added_.contains(content); }
  /// A token with this text and these properties was added.
  bool contains_equal(const nlohmann::json& token) const;
  std::optional<std::int64_t> id(const std::string& content) const;
  std::int64_t vocabulary_size() const { return vocabulary_size_; }
  nlohmann::json json() const;

 private:
  std::int64_t next_id() const;
  std::unordered_map<std::string, std::int64_t> vocabulary_;
  std::unordered_map<std::string, std::pair<std::int64_t, nlohmann::json>> added_;
  std::int64_t vocabulary_size_ = 0;
  std::int64_t highest_ = -1;  // id of an added token
};

}  // namespace attune::text
