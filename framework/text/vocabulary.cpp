#include "text/vocabulary.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "attune/error.hpp"

namespace attune::text {

Vocabulary::Vocabulary(const nlohmann::json& json) {
  if (!json.is_object())
    fail("tokenizer.json: the model's vocab must be an object of tokens and ids, but is of type {}",
         json.type_name());
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

std::vector<std::pair<std::string_view, std::int32_t>> Vocabulary::sorted() const {
  std::vector<std::pair<std::string_view, std::int32_t>> entries(ids_.begin(), ids_.end());
  std::sort(entries.begin(), entries.end());
  return entries;
}

ByteTokens::ByteTokens(const Vocabulary& vocabulary) {
  for (int byte = 0; byte < 256; ++byte)
    ids_[byte] = vocabulary.id(fmt::format("<0x{:02X}>", byte)).value_or(-1);
}

bool ByteTokens::cover(std::string_view text) const {
  return std::all_of(text.begin(), text.end(), [&](char byte) { return (*this)[byte] >= 0; });
}

std::optional<std::int32_t> unknown_id(const Vocabulary& vocabulary, const std::string& token,
                                       std::string_view model) {
  if (token.empty()) return std::nullopt;
  const auto id = vocabulary.id(token);
  if (!id)
    fail(
        "tokenizer.json: the unknown token '{}' is not in the {} vocab; add it, or set unk_token "
        "to one that is",
        token, model);
  return id;
}

std::int32_t checked_id(const nlohmann::json& json, std::string_view token) {
  // What is below 0 as a signed number is either negative or above 2^63.
  const auto id = json.is_number_integer() ? json.get<std::int64_t>() : -1;
  if (id < 0 || id > INT32_MAX)
    fail("tokenizer.json: the id of the token '{}' must be a whole number from 0 to {}, but is {}",
         token, INT32_MAX, json.dump());
  return static_cast<std::int32_t>(id);
}

}  // namespace attune::text
