#include "text/tokenizer_settings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <set>

#include "text/part.hpp"
#include "text/vocabulary.hpp"

namespace attune::text {
namespace {

constexpr const char* config_file = "tokenizer_config.json";
constexpr std::array names = {"bos_token", "eos_token", "unk_token", "sep_token",
                              "pad_token", "cls_token", "mask_token"};

bool is_usual_name(const std::string& key) {
  return std::find(names.begin(), names.end(), key) != names.end();
}

template <class AnyJson>
std::string dumped(const AnyJson& json) {
  return json.dump(-1, ' ', false, AnyJson::error_handler_t::replace);
}

Json plain(const OrderedJson& json) { return Json::parse(dumped(json)); }
OrderedJson ordered(const Json& json) { return OrderedJson::parse(dumped(json)); }

/// A text as it is, an object as an entry of "added_tokens".
Json token_of(const OrderedJson& json, const std::string& key, bool special = false) {
  if (json.is_string()) return json.get<std::string>();
  if (!json.is_object())
    fail("{}: \"{}\" must be a token, but is {}", config_file, key, dumped(json));
  return added_token_from(plain(json), special, fmt::format("{}, \"{}\"", config_file, key));
}

std::int64_t id_of(const std::string& key) {
  std::int64_t id = -1;
  const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
  if (error != std::errc() || end != key.data() + key.size() || id < 0)
    fail("{}: \"added_tokens_decoder\" has the key '{}', which is not an id", config_file, key);
  return id;
}

/// What changes ids and is not done here.
void refuse_unsupported(const OrderedJson& config) {
  const auto is_true = [&](const char* key) {
    return config.contains(key) && config.at(key) == true;
  };
  if (is_true("split_special_tokens"))
    fail("{}: \"split_special_tokens\": true is not supported; set it to false", config_file);
  if (is_true("fix_mistral_regex"))
    fail(
        "{}: \"fix_mistral_regex\": true is not supported; save the tokenizer again with "
        "transformers and remove the key",
        config_file);
  if (config.contains("init_inputs") && !config.at("init_inputs").empty())
    fail("{}: \"init_inputs\" is not supported; save the tokenizer again with transformers",
         config_file);
  if (!config.contains("fast_tokenizer_files")) return;
  for (const auto& file : config.at("fast_tokenizer_files"))
    if (file != "tokenizer.json")
      fail("{}: \"fast_tokenizer_files\" names {}, which is not supported; remove the key",
           config_file, dumped(file));
}

}  // namespace

std::string token_text(const Json& token) {
  return token.is_string() ? token.get<std::string>() : token.at("content").get<std::string>();
}

TokenizerSettings::TokenizerSettings(const SettingsFiles& files)
    : values_(files.tokenizer_config.is_null() ? OrderedJson::object() : files.tokenizer_config) {
  refuse_unsupported(values_);
  if (files.tokenizer_json) {  // whose post-processor decides
    values_.erase("add_bos_token");
    values_.erase("add_eos_token");
  }
  const bool has_extra =
      values_.contains("extra_special_tokens") && !values_["extra_special_tokens"].empty();
  if (values_.contains("additional_special_tokens") && !has_extra) {
    values_["extra_special_tokens"] = values_["additional_special_tokens"];
    values_.erase("additional_special_tokens");
  }
  collect_model_tokens();
  read_tokens(files);
}

/// "image_token": "<image>" and {"extra_special_tokens": {"image_token": "<image>"}} name a special
/// token of the model's own.
void TokenizerSettings::collect_model_tokens() {
  std::vector<std::string> keys;
  for (const auto& [key, value] : values_.items())
    if (key.ends_with("_token") && !is_usual_name(key) && value.is_string()) keys.push_back(key);
  for (const auto& key : keys) {
    model_tokens_.emplace_back(key, values_[key]);
    values_.erase(key);
  }
  for (const char* name : {"extra_special_tokens", "model_specific_special_tokens"}) {
    const auto extra = values_.find(name);
    if (extra == values_.end() || !extra->is_object()) continue;
    for (const auto& [key, value] : extra->items()) model_tokens_.emplace_back(key, value);
    values_.erase(name);
  }
}

void TokenizerSettings::read_tokens(const SettingsFiles& files) {
  if (const auto found = values_.find("added_tokens_decoder"); found != values_.end()) {
    if (!found->is_object())
      fail("{}: \"added_tokens_decoder\" must be an object of ids and tokens", config_file);
    const auto where = fmt::format("{}, \"added_tokens_decoder\"", config_file);
    for (const auto& [key, token] : found->items())
      added_[id_of(key)] = added_token_from(plain(token), false, where);
  } else {
    if (!files.special_tokens_map.is_null()) read_special_tokens_map(files.special_tokens_map);
    if (!files.added_tokens.is_null()) read_added_tokens(files.added_tokens);
    if (files.tokenizer_json)
      for (const auto& token : value_or(*files.tokenizer_json, "added_tokens", Json::array()))
        added_[checked_id(token.at("id"), token_text(token))] =
            added_token_from(token, false, "tokenizer.json");
  }
  // A named token has the properties that an added one of its text has.
  std::map<std::string, Json> by_text;
  for (const auto& [id, token] : added_) by_text[token_text(token)] = token;
  for (const char* name : names) {
    const auto found = values_.find(name);
    if (found == values_.end() || found->is_null()) continue;
    if (const auto added = by_text.find(token_text(token_of(*found, name))); added != by_text.end())
      *found = ordered(added->second);
  }
}

/// The form before "added_tokens_decoder"; it overrules tokenizer_config.json.
void TokenizerSettings::read_special_tokens_map(const OrderedJson& map) {
  for (const auto& [key, value] : map.items()) {
    if (key == "extra_special_tokens" && value.is_array()) {
      auto& extra = values_[key];
      if (!extra.is_array()) extra = OrderedJson::array();
      for (const auto& token : value)
        if (std::find(extra.begin(), extra.end(), token) == extra.end()) extra.push_back(token);
    } else if (key == "extra_special_tokens" && value.is_object()) {
      for (const auto& [name, token] : value.items()) model_tokens_.emplace_back(name, token);
    } else if (value.is_object()) {
      auto token = plain(value);
      token.erase("special");
      values_[key] = ordered(added_token_from(token, true, "special_tokens_map.json"));
    } else {
      values_[key] = value;
    }
  }
}

/// Text and id of each token.
void TokenizerSettings::read_added_tokens(const OrderedJson& tokens) {
  std::set<std::string> special;
  const auto collect = [&](const OrderedJson& value) {
    // transformers compares before it reads such an object
    const bool unread = value.is_object() && value.contains("__type");
    if (!value.is_null() && !unread) special.insert(token_text(token_of(value, "special token")));
  };
  for (const char* name : names)
    if (values_.contains(name)) collect(values_[name]);
  if (const auto extra = values_.find("extra_special_tokens");
      extra != values_.end() && extra->is_array())
    for (const auto& value : *extra) collect(value);
  for (const auto& [text, id] : tokens.items()) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() > INT32_MAX)
      fail("added_tokens.json: the id of '{}' is {}, which is not an id", text, dumped(id));
    added_[id.get<std::int64_t>()] = added_token(text, special.contains(text));
  }
}

bool TokenizerSettings::flag(const std::string& key, bool otherwise) const {
  const auto found = values_.find(key);
  if (found == values_.end() || found->is_null()) return otherwise;
  if (!found->is_boolean())
    fail("{}: \"{}\" must be true or false, but is {}", config_file, key, dumped(*found));
  return found->get<bool>();
}

std::int64_t TokenizerSettings::number(const std::string& key, std::int64_t otherwise) const {
  constexpr std::uint64_t largest = 100'000;  // of tokens that a class makes up
  const auto found = values_.find(key);
  if (found == values_.end() || found->is_null()) return otherwise;
  if (!found->is_number_unsigned() || found->get<std::uint64_t>() > largest)
    fail("{}: \"{}\" must be a whole number up to {}, but is {}", config_file, key, largest,
         dumped(*found));
  return found->get<std::int64_t>();
}

void TokenizerSettings::set_default(const std::string& key, const OrderedJson& value) {
  if (!values_.contains(key)) values_[key] = value;
}

void TokenizerSettings::set_default_extra(const std::vector<Json>& tokens) {
  if (values_.contains("extra_special_tokens")) return;
  auto& extra = values_["extra_special_tokens"] = OrderedJson::array();
  for (const auto& token : tokens) extra.push_back(ordered(token));
}

std::string TokenizerSettings::token(const std::string& name) const {
  const auto found = values_.find(name);
  return found == values_.end() || found->is_null() ? "" : token_text(token_of(*found, name));
}

std::vector<std::pair<std::string, Json>> TokenizerSettings::named_tokens() const {
  std::vector<std::pair<std::string, Json>> result;
  const auto set = [&](const std::string& key, const OrderedJson& value) {
    const auto same = std::find_if(result.begin(), result.end(),
                                   [&](const auto& entry) { return entry.first == key; });
    if (same == result.end())
      result.emplace_back(key, token_of(value, key));
    else
      same->second = token_of(value, key);
  };
  for (const char* name : names)
    if (const auto found = values_.find(name); found != values_.end() && !found->is_null())
      set(name, *found);
  for (const auto& [key, value] : values_.items())
    if (key.ends_with("_token") && !is_usual_name(key) && (value.is_string() || value.is_object()))
      set(key, value);
  for (const auto& [key, value] : model_tokens_) set(key, value);
  return result;
}

std::map<std::string, std::string> TokenizerSettings::token_texts() const {
  std::map<std::string, std::string> texts;
  for (const auto& [name, token] : named_tokens()) texts.emplace(name, token_text(token));
  return texts;
}

std::vector<Json> TokenizerSettings::extra_tokens() const {
  auto found = values_.find("extra_special_tokens");
  // special_tokens_map.json may bring the older name.
  if (found == values_.end()) found = values_.find("additional_special_tokens");
  std::vector<Json> result;
  if (found == values_.end() || found->is_null()) return result;
  if (!found->is_array())
    fail("{}: \"extra_special_tokens\" must be a list of tokens or an object of them, but is {}",
         config_file, dumped(*found));
  for (const auto& token : *found) result.push_back(token_of(token, "extra_special_tokens", true));
  return result;
}

std::vector<Json> TokenizerSettings::special_tokens() const {
  std::vector<Json> result;
  for (const auto& [name, token] : named_tokens()) result.push_back(token);
  for (const auto& token : extra_tokens()) result.push_back(token);
  return result;
}

void TokenizerSettings::add_tokens_to(AddedTokenList& list) const {
  std::vector<Json> tokens;
  std::set<std::string> known;
  std::set<std::string> seen;
  for (const auto& [id, token] : added_) {
    if (list.contains_equal(token)) continue;
    tokens.push_back(token);
    known.insert(token_text(token));
  }
  for (const auto& token : special_tokens()) {
    const auto text = token_text(token);
    if (!list.contains(text) && !known.contains(text) && seen.insert(dumped(token)).second)
      tokens.push_back(token);
  }
  std::set<std::string> named;
  for (const auto& [name, token] : named_tokens()) named.insert(token_text(token));
  for (auto& token : tokens) {
    if (token.is_string()) token = added_token(token.get<std::string>(), true);
    if (named.contains(token_text(token))) token["special"] = true;
    list.add(token);
  }
}

}  // namespace attune::text
