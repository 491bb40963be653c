#include "prepare/row.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "core/names.hpp"
#include "text/unicode.hpp"

namespace attune {
using nlohmann::json;
namespace {

/// The value of a key, or a BadRow that lists the keys there are.
const json& member(const Row& row, const json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found != object.end() && !found->is_null()) return *found;
  std::vector<std::string> names;
  for (const auto& [name, value] : object.items()) names.push_back(name);
  bad_row(row, "a field is missing", "there is no field '{}' (those there: {}){}; correct fields or layout in the recipe", key,
          names.empty() ? "none" : joined(names), did_you_mean(key, names));
}

bool is_plain(const json& value) { return value.is_string() || value.is_number() || value.is_boolean(); }

/// Texts as they are; numbers and booleans as JSON writes them.
std::string text_of(const Row& row, const json& object, const std::string& key) {
  const json& value = member(row, object, key);
  if (value.is_string()) return value.get<std::string>();
  if (is_plain(value)) return value.dump();
  bad_row(row, "a field is no text", "the field '{}' is {} and should be a text, a number or a boolean; correct fields or layout in the recipe", key,
          value.is_array() ? "a list" : "a table");
}

/// Fields that may be lists, of which a record then holds the JSON: several labels, and words with their tags.
bool may_be_list(const std::string& field) { return field == "labels" || field == "words" || field == "tags"; }

bool is_plain_list(const json& value) { return value.is_array() && std::ranges::all_of(value, is_plain); }

std::string field_of(const Row& row, const json& object, const std::string& field, const std::string& key) {
  const json& value = member(row, object, key);
  return may_be_list(field) && is_plain_list(value) ? value.dump() : text_of(row, object, key);
}

std::string optional_text(const Row& row, const json& object, const std::string& key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? "" : text_of(row, object, key);
}

std::string role_of(const Row& row, const std::string& name) {
  static const std::map<std::string, std::string> roles{{"system", "system"},   {"user", "user"}, {"assistant", "assistant"},
                                                        {"human", "user"}, {"gpt", "assistant"}};  // ShareGPT's
  const auto found = roles.find(name);
  if (found == roles.end()) bad_row(row, "an unknown role", "the role '{}' is none of system, user (or human), assistant (or gpt)", name);
  return found->second;
}

/// {role, content} or {from, value}
Message message_of(const Row& row, const json& entry) {
  if (!entry.is_object()) bad_row(row, "a message is no table", "an entry of its messages is not a table with role and content");
  const bool share_gpt = entry.contains("from");
  return {role_of(row, text_of(row, entry, share_gpt ? "from" : "role")), text_of(row, entry, share_gpt ? "value" : "content")};
}

std::vector<Message> messages_of(const Row& row, const json& list, const std::string& key) {
  if (!list.is_array() || list.empty())
    bad_row(row, "no list of messages", "'{}' should be a list of {{role, content}} with at least one entry", key);
  std::vector<Message> messages;
  for (const auto& entry : list) messages.push_back(message_of(row, entry));
  return messages;
}

std::vector<Message> conversation_of(const Row& row, const json& object) {
  const std::string key = object.contains("conversations") ? "conversations" : "messages";
  auto messages = messages_of(row, member(row, object, key), key);
  if (auto system = optional_text(row, object, "system"); !system.empty() && messages.front().role != "system")
    messages.insert(messages.begin(), {"system", std::move(system)});
  return messages;
}

/// instruction and, where there is one, its input, as one prompt.
std::string alpaca_prompt(const Row& row, const json& object) {
  const auto input = optional_text(row, object, "input");
  return text_of(row, object, "instruction") + (input.empty() ? "" : "\n\n" + input);
}

/// An answer: a text, a message, or a conversation that ends in it.
std::string answer_of(const Row& row, const json& object, const std::string& key) {
  const json& value = member(row, object, key);
  if (value.is_object()) return message_of(row, value).content;
  if (value.is_array()) return messages_of(row, value, key).back().content;
  return text_of(row, object, key);
}

void set_preference(const Row& row, const json& object, Record& record) {
  record.fields["chosen"] = answer_of(row, object, "chosen");
  record.fields["rejected"] = answer_of(row, object, "rejected");
  if (object.contains("conversations") || object.contains("messages")) {
    record.messages = conversation_of(row, object);
  } else if (object.contains("prompt") || !object.at("chosen").is_array()) {
    record.fields["prompt"] = text_of(row, object, "prompt");
    if (auto system = optional_text(row, object, "system"); !system.empty()) record.fields["system"] = std::move(system);
  } else {
    record.messages = messages_of(row, object.at("chosen"), "chosen");
    record.messages.pop_back();
  }
}

}  // namespace

Record record_of(const SourceOptions& options, const Row& row, const json& object) {
  if (!object.is_object()) bad_row(row, "not a JSON object", "is not a JSON object ({{...}}), but a record must be one");
  Record record;
  record.source = row.source;
  record.row = row.number;
  auto& fields = record.fields;
  if (options.layout == "messages") {
    record.messages = conversation_of(row, object);
  } else if (options.layout == "preference") {
    set_preference(row, object, record);
  } else if (!options.layout.empty()) {
    const bool alpaca = options.layout == "alpaca";
    fields["prompt"] = alpaca ? alpaca_prompt(row, object) : text_of(row, object, "prompt");
    fields["response"] = text_of(row, object, alpaca ? "output" : "completion");
    if (auto system = optional_text(row, object, "system"); !system.empty()) fields["system"] = std::move(system);
  } else if (!options.fields.empty()) {
    for (const auto& [name, key] : options.fields) fields[name] = field_of(row, object, name, key);
  } else {
    for (const auto& [key, value] : object.items())
      if (is_plain(value) || (may_be_list(key) && is_plain_list(value))) fields[key] = field_of(row, object, key, key);
  }
  return record;
}

std::string sound_text(std::string text, const Row& row, Ledger& ledger) {
  if (text::is_ascii(text)) return text;
  auto valid = text::valid_utf8(text);
  if (valid != text) ledger.change("ill-formed UTF-8 replaced by U+FFFD", row.where());
  return valid;
}

}  // namespace attune
