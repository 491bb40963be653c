// What a model folder says of its tokenizer beside the vocabulary: tokenizer_config.json,
// special_tokens_map.json and added_tokens.json, read as transformers' from_pretrained reads them.
#pragma once
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "text/added_token_list.hpp"

namespace attune::text {

using OrderedJson = nlohmann::ordered_json;  // the order of tokens is that of their ids

/// The objects in a folder's files; null where there is none.
struct SettingsFiles {
  OrderedJson tokenizer_config;
  OrderedJson special_tokens_map;
  OrderedJson added_tokens;
  const nlohmann::json* tokenizer_json = nullptr;
};

/// Of a token that is a text or an object as in "added_tokens".
std::string token_text(const nlohmann::json& token);

class TokenizerSettings {
 public:
  /// Error that names the file and the key for what cannot be honoured.
  explicit TokenizerSettings(const SettingsFiles& files);

  /// Null counts as absent. Error when the value is not true or false.
  bool flag(const std::string& key, bool otherwise) const;
  bool has(const std::string& key) const { return values_.contains(key); }
  std::int64_t number(const std::string& key, std::int64_t otherwise) const;

  /// Values that a tokenizer class gives where the files give none: {"unk_token", "<unk>"}.
  void set_default(const std::string& key, const OrderedJson& value);
  /// Tokens that the vocabulary marks as added; they count only where the files name no extra
  /// tokens.
  void set_default_extra(const std::vector<nlohmann::json>& tokens);

  /// The text of a special token ("bos_token"); "" when there is none.
  std::string token(const std::string& name) const;
  /// Every special token that has a name, the model's own among them: {"image_token", "<image>"}.
  std::map<std::string, std::string> token_texts() const;
  /// bos, eos, unk, sep, pad, cls, mask and the model's own, then the extra ones: texts, or objects
  /// as in "added_tokens".
  std::vector<nlohmann::json> special_tokens() const;
  std::vector<nlohmann::json> extra_tokens() const;
  /// "added_tokens_decoder": tokens by the ids that the files give, which decide over their order
  /// alone.
  const std::map<std::int64_t, nlohmann::json>& added() const { return added_; }

  /// Adds what `list` lacks, in transformers' order.
  void add_tokens_to(AddedTokenList& list) const;

 private:
  void read_tokens(const SettingsFiles& files);
  void read_special_tokens_map(const OrderedJson& map);
  void read_added_tokens(const OrderedJson& tokens);
  void collect_model_tokens();
  std::vector<std::pair<std::string, nlohmann::json>> named_tokens() const;

  OrderedJson values_;
  // named tokens that only this model has
  std::vector<std::pair<std::string, OrderedJson>> model_tokens_;
  std::map<std::int64_t, nlohmann::json> added_;
};

}  // namespace attune::text
