#include "text/vocabulary.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "attune/error.hpp"

namespace attune::text {

Vocabulary::Vocabulary(const nlohmann::json& json) {
  if (!json.is_object()) fail("tokenizer.json: the model's vocab must be an object of tokens and ids, but is of type {}", json.type_name());
  ids_.reserve(json.size());
  tokens_.reserve(json.size());
  for (const auto& [token, id] : json.items()) add(token, checked_id(id, token));
}

void Vocabulary::add(const std::string& token, std::int32_t id) {
  const auto entry = ids_.insert_or_assign(token, id).first;
  tokens_[id] = &entry->first;
  largest_ = std::max(largest_, id);
}

std::optional<std::int32_t> Vocabulary::id(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

const std::string* Vocabulary::token(std::int32_t id) const {
  const auto found = tokens_.find(id);
  return found == tokens_.end() ? nullptr : found->second;
}

std::int32_t checked_id(const nlohmann::json& json, std::string_view token) {
  // What is below 0 as a signed number is either negative or above 2^63.
  const auto id = json.is_number_integer() ? json.get<std::int64_t>() : -1;
  if (id < 0 || id > INT32_MAX)
    fail("tokenizer.json: the id of the token '{}' must be a whole number from 0 to {}, but is {}", token, INT32_MAX, json.dump());
  return static_cast<std::int32_t>(id);
}

}  // namespace attune::text
