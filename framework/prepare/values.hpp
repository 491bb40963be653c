// Values of a row as JSON, for all source formats. Keys keep their order, which chat templates use.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "prepare/row.hpp"

namespace attune {

using RowJson = nlohmann::ordered_json;

/// The value of a key; nullptr if it is absent or null.
const RowJson* given(const RowJson& object, const std::string& key);
/// The value of a key. BadRow that lists the existing keys if it is absent or null.
const RowJson& member(const Row& row, const RowJson& object, const std::string& key);

/// Whether a value is null, false, or an empty text, list or table.
bool says_no(const RowJson& value);

/// A text unchanged, or a number or boolean in JSON syntax. BadRow for other types.
std::string text_of(const Row& row, const RowJson& object, const std::string& key);
/// The same; "" if the key is absent or null.
std::string optional_text(const Row& row, const RowJson& object, const std::string& key);

/// Whether a value is a text, number or boolean.
bool is_plain(const RowJson& value);
/// Type name for messages: "a list", "a table", ...
std::string kind_of(const RowJson& value);

/// Placeholder for bytes that are not UTF-8: a table with this single key and the number of bytes.
inline constexpr const char* bytes_key =
    "\x01"
    "bytes";
/// Placeholder for a value of a type without text form: a table with this single key and the type's
/// name.
inline constexpr const char* other_key =
    "\x01"
    "type";

}  // namespace attune
