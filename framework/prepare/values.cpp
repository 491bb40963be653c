#include "prepare/values.hpp"

#include <algorithm>

#include "core/names.hpp"

namespace attune {
namespace {

std::vector<std::string> sorted_keys(const RowJson& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  return keys;
}

}  // namespace

const RowJson* given(const RowJson& object, const std::string& key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

const RowJson& member(const Row& row, const RowJson& object, const std::string& key) {
  if (const auto* value = given(object, key)) return *value;
  if (object.contains(key))
    bad_row(row, "a field is missing",
            "the field '{}' has no value (null) here; correct or remove the row", key);
  const auto keys = sorted_keys(object);
  bad_row(row, "a field is missing",
          "there is no field '{}' (those there: {}){}; correct fields or layout in the recipe", key,
          keys.empty() ? "none" : joined(keys), did_you_mean(key, keys));
}

bool says_no(const RowJson& value) {
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  return value.is_null() || value == false ||
         ((value.is_array() || value.is_object()) && value.empty());
}

bool is_plain(const RowJson& value) {
  return value.is_string() || value.is_number() || value.is_boolean();
}

std::string kind_of(const RowJson& value) {
  if (value.is_object() && value.contains(bytes_key))
    return fmt::format("{} bytes that are not UTF-8", value.at(bytes_key).dump());
  if (value.is_object() && value.contains(other_key))
    return fmt::format("of the type {}", value.at(other_key).get<std::string>());
  return value.is_array() ? "a list" : value.is_object() ? "a table" : value.dump();
}

std::string text_of(const Row& row, const RowJson& object, const std::string& key) {
  const auto& value = member(row, object, key);
  if (value.is_string()) return value.get<std::string>();
  if (is_plain(value)) return value.dump();
  if (value.is_array())
    bad_row(row, "a field that is not text",
            "the field '{}' is a list, and one of its elements is not a text, a number or a "
            "boolean; correct the row, or fields or layout in the recipe",
            key);
  bad_row(row, "a field that is not text",
          "the field '{}' is {} and should be a text, a number or a boolean; correct fields or "
          "layout in the recipe",
          key, kind_of(value));
}

std::string optional_text(const Row& row, const RowJson& object, const std::string& key) {
  return given(object, key) ? text_of(row, object, key) : "";
}

}  // namespace attune
