#include "text/added_token_list.hpp"

#include <algorithm>

#include "text/part.hpp"
#include "text/vocabulary.hpp"

namespace attune::text {

Json added_token(const std::string& content, bool special) {
  return {{"content", content}, {"single_word", false},   {"lstrip", false},
          {"rstrip", false},    {"normalized", !special}, {"special", special}};
}

Json added_token_from(const Json& json, bool special, const std::string& where) {
  const auto content = json.is_object() ? json.find("content") : json.end();
  if (!json.is_object() || content == json.end() || !content->is_string())
    fail("{}: an added token must be an object with \"content\", but is {}", where,
         json.dump(-1, ' ', false, Json::error_handler_t::replace));
  const auto flag = [&](const char* key, bool usual) {
    const auto found = json.find(key);
    if (found == json.end() || found->is_null()) return usual;
    if (!found->is_boolean())
      fail("{}: \"{}\" of the added token '{}' must be true or false", where, key,
           content->get<std::string>());
    return found->get<bool>();
  };
  special = flag("special", special);
  auto token = added_token(content->get<std::string>(), special);
  for (const char* key : {"single_word", "lstrip", "rstrip"}) token[key] = flag(key, false);
  token["normalized"] = flag("normalized", !special);
  return token;
}

AddedTokenList::AddedTokenList(const Json& model) {
  const auto& vocab = model.at("vocab");
  vocabulary_size_ = static_cast<std::int64_t>(vocab.size());
  vocabulary_.reserve(vocab.size());
  if (vocab.is_array()) {
    for (std::int64_t id = 0; const auto& piece : vocab)
      vocabulary_.insert_or_assign(piece.at(0).get<std::string>(), id++);
    return;
  }
  for (const auto& [token, id] : vocab.items()) vocabulary_.emplace(token, checked_id(id, token));
}

std::int64_t AddedTokenList::next_id() const { return std::max(highest_ + 1, vocabulary_size_); }

bool AddedTokenList::contains_equal(const Json& token) const {
  const auto found = added_.find(token.at("content").get<std::string>());
  return found != added_.end() && found->second.second == token;
}

std::optional<std::int64_t> AddedTokenList::id(const std::string& content) const {
  if (const auto found = added_.find(content); found != added_.end()) return found->second.first;
  if (const auto found = vocabulary_.find(content); found != vocabulary_.end())
    return found->second;
  return std::nullopt;
}

void AddedTokenList::add(const Json& token) {
  const auto content = token.at("content").get<std::string>();
  if (content.empty()) return;
  const auto id = this->id(content).value_or(next_id());
  added_.insert_or_assign(content, std::pair(id, token));
  highest_ = std::max(highest_, id);
}

Json AddedTokenList::json() const {
  std::vector<Json> tokens;
  for (const auto& [content, entry] : added_) {
    tokens.push_back(entry.second);
    tokens.back()["id"] = entry.first;
  }
  std::sort(tokens.begin(), tokens.end(),
            [](const Json& a, const Json& b) { return a["id"] < b["id"]; });
  return tokens;
}

}  // namespace attune::text
