#include "weights/special_tokens.hpp"

#include <algorithm>
#include <utility>

#include "weights/model_files.hpp"

namespace attune {
using nlohmann::json;
namespace {

/// Calls visit(text, id) for every token of a tokenizer.json, added ones last.
template <class Visit>
void each_token(const json& tokenizer, Visit visit) {
  const auto model = tokenizer.find("model");
  if (model != tokenizer.end() && model->is_object() && model->contains("vocab")) {
    const auto& vocabulary = (*model)["vocab"];
    std::int64_t row = 0;
    for (const auto& [text, id] : vocabulary.items()) {
      if (vocabulary.is_object() && id.is_number_integer())
        visit(text, id.template get<std::int64_t>());
      if (!vocabulary.is_array()) continue;
      // Unigram: [text, score]
      const bool is_scored = id.is_array() && !id.empty() && id[0].is_string();
      visit(is_scored ? id[0].template get<std::string>() : std::string(), row++);
    }
  }
  const auto added = tokenizer.find("added_tokens");
  if (added == tokenizer.end() || !added->is_array()) return;
  for (const auto& token : *added)
    if (token.is_object() && token.contains("id") && token["id"].is_number_integer())
      visit(special_token(token, "content"), token["id"].template get<std::int64_t>());
}

/// "tokenizer.ggml.eos_token_id" of the metadata.
std::optional<std::int64_t> gguf_token(const json& metadata, const char* name) {
  const auto found = metadata.find(fmt::format("tokenizer.ggml.{}_token_id", name));
  if (found == metadata.end() || !found->is_number_unsigned()) return std::nullopt;
  return found->get<std::int64_t>();
}

}  // namespace

std::vector<std::int64_t> token_ids(const json& object, const std::string& key) {
  std::vector<std::int64_t> ids;
  const auto found = object.find(key);
  if (found == object.end()) return ids;
  const auto add = [&](const json& id) {
    if (id.is_number_integer()) ids.push_back(id.get<std::int64_t>());
  };
  if (found->is_array())
    std::ranges::for_each(*found, add);
  else
    add(*found);
  return ids;
}

std::string special_token(const json& tokenizer_config, const std::string& key) {
  const auto found = tokenizer_config.find(key);
  if (found == tokenizer_config.end()) return "";
  if (found->is_object()) return special_token(*found, "content");
  return found->is_string() ? found->get<std::string>() : "";
}

std::optional<std::string> token_text(const json& tokenizer, std::int64_t id) {
  std::optional<std::string> found;
  each_token(tokenizer, [&](const std::string& text, std::int64_t candidate) {
    if (candidate == id) found = text;
  });
  return found;
}

std::optional<std::int64_t> token_id(const json& tokenizer, const std::string& text) {
  std::optional<std::int64_t> found;
  each_token(tokenizer, [&](const std::string& candidate, std::int64_t id) {
    if (candidate == text) found = id;
  });
  return found;
}

bool has_token(const json& tokenizer, const std::string& text) {
  return token_id(tokenizer, text).has_value();
}

std::int64_t tokenizer_size(const json& tokenizer) {
  std::int64_t size = 0;
  each_token(tokenizer,
             [&](const std::string&, std::int64_t id) { size = std::max(size, id + 1); });
  return size;
}

json with_special_tokens(json tokenizer_config, const std::map<std::string, std::string>& tokens,
                         const json& tokenizer) {
  for (const auto& [name, text] : tokens)
    if (special_token(tokenizer_config, name) != text && has_token(tokenizer, text))
      tokenizer_config[name] = text;
  return tokenizer_config;
}

std::map<std::string, std::string> special_tokens_of_gguf(const json& metadata) {
  constexpr std::pair<const char*, const char*> names[] = {{"bos_token", "bos"},
                                                           {"eos_token", "eos"},
                                                           {"pad_token", "padding"},
                                                           {"unk_token", "unknown"},
                                                           // gguf spells it "seperator"
                                                           {"cls_token", "cls"},
                                                           {"sep_token", "seperator"},
                                                           {"sep_token", "separator"},
                                                           {"mask_token", "mask"}};
  std::map<std::string, std::string> special;
  const auto tokens = metadata.find("tokenizer.ggml.tokens");
  if (tokens == metadata.end() || !tokens->is_array()) return special;
  for (const auto& [ours, theirs] : names)
    if (const auto id = gguf_token(metadata, theirs); id && *id < std::ssize(*tokens))
      special[ours] = (*tokens)[static_cast<std::size_t>(*id)].get<std::string>();
  return special;
}

json generation_config_from_gguf(const json& metadata) {
  auto config = json::object();
  for (const auto& [ours, theirs] :
       {std::pair("bos_token_id", "bos"), std::pair("pad_token_id", "padding")})
    if (const auto id = gguf_token(metadata, theirs)) config[ours] = *id;
  std::vector<std::int64_t> ends;
  for (const auto* name : {"eos", "eot", "eom"})
    if (const auto id = gguf_token(metadata, name);
        id && std::ranges::find(ends, *id) == ends.end())
      ends.push_back(*id);
  if (ends.size() == 1) config["eos_token_id"] = ends.front();
  if (ends.size() > 1) config["eos_token_id"] = ends;
  return config;
}

}  // namespace attune
