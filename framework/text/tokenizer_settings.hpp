// A model folder's tokenizer settings: tokenizer_config.json, special_tokens_map.json and
// added_tokens.json, interpreted as by transformers' from_pretrained.
#pragma once
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "text/added_token_list.hpp"

namespace attune::text {

using OrderedJson = nlohmann::ordered_json;  // tokens are in the order of their ids

/// The JSON objects of a folder's files; null for missing files.
struct SettingsFiles {
  OrderedJson tokenizer_config;
  OrderedJson special_tokens_map;
  OrderedJson added_tokens;
  const nlohmann::json* tokenizer_json = nullptr;
};

/// Text of a token that is a text or an object as in "added_tokens".
std::string token_text(const nlohmann::json& token);

class TokenizerSettings {
 public:
  /// Error that names the file and the key for an unsupported setting.
  explicit TokenizerSettings(const SettingsFiles& files);

  /// Null counts as absent. Error if the value is not a boolean.
  bool flag(const std::string& key, bool otherwise) const;
  bool has(const std::string& key) const { return values_.contains(key); }
  std::int64_t number(const std::string& key, std::int64_t otherwise) const;

  /// Sets a tokenizer class's default for a key missing in the files: {"unk_token", "<unk>"}.
  void set_default(const std::string& key, const OrderedJson& value);
  /// Sets the vocabulary's added tokens as extra tokens, unless the files name extra tokens.
  void set_default_extra(const std::vector<nlohmann::json>& tokens);

  /// Text of a special token ("bos_token"); "" if there is none.
  std::string token(const std::string& name) const;
  /// All named special tokens, including the model's own: {"image_token", "<image>"}.
  std::map<std::string, std::string> token_texts() const;
  /// bos, eos, unk, sep, pad, cls, mask, the model's own, and the extra ones: texts, or objects as
  /// in "added_tokens".
  std::vector<nlohmann::json> special_tokens() const;
  std::vector<nlohmann::json> extra_tokens() const;
  /// "added_tokens_decoder": tokens by their ids in the files, which only determine their order.
  const std::map<std::int64_t, nlohmann::json>& added() const { return added_; }

  /// Adds missing tokens to `list`, in transformers' order.
  void add_tokens_to(AddedTokenList& list) const;

 private:
  void read_tokens(const SettingsFiles& files);
  void read_special_tokens_map(const OrderedJson& map);
  void read_added_tokens(const OrderedJson& tokens);
  void collect_model_tokens();
  std::vector<std::pair<std::string, nlohmann::json>> named_tokens() const;

  OrderedJson values_;
  // named tokens specific to this model
  std::vector<std::pair<std::string, OrderedJson>> model_tokens_;
  std::map<std::int64_t, nlohmann::json> added_;
};

}  // namespace attune::text
