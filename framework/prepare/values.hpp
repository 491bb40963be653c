// The values of a row: JSON, whatever the source was. Keys keep their order, in which chat
// templates write them.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "prepare/row.hpp"

namespace attune {

using RowJson = nlohmann::ordered_json;

/// The value of a key; null when it is absent or null.
const RowJson* given(const RowJson& object, const std::string& key);
/// The same, or a BadRow that lists the keys there are.
const RowJson& member(const Row& row, const RowJson& object, const std::string& key);

/// Null, false, an empty text, an empty list or an empty table.
bool says_no(const RowJson& value);

/// Texts as they are; numbers and booleans as JSON writes them. BadRow for all else.
std::string text_of(const Row& row, const RowJson& object, const std::string& key);
/// The same; "" when it is absent or null.
std::string optional_text(const Row& row, const RowJson& object, const std::string& key);

/// A text, number or boolean.
bool is_plain(const RowJson& value);
/// "a list", "a table" or what else it is.
std::string kind_of(const RowJson& value);

/// What a source gives for bytes that are no UTF-8: a table with this one key, and their number.
inline constexpr const char* bytes_key =
    "\x01"
    "bytes";
/// What it gives for a value of a type that has no text: a table with this one key, and the type's
/// name.
inline constexpr const char* other_key =
    "\x01"
    "type";

}  // namespace attune
