// A row of a source, and its conversion to a record.
#pragma once
#include <fmt/format.h>

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "prepare/source.hpp"

namespace attune {

struct Row {
  const std::string& source;
  std::int64_t number;
  std::string where() const { return fmt::format("{}, row {}", source, number); }
};

/// Throws BadRow with the text "<where>: <text>".
template <class... Args>
[[noreturn]] void bad_row(const Row& row, const char* reason, fmt::format_string<Args...> text,
                          Args&&... args) {
  throw BadRow(reason, row.where() + ": " + fmt::format(text, std::forward<Args>(args)...));
}

/// Converts a row to a record, according to the source's fields and layout.
///
/// fields = { text = "review" } sets the record's field `text` from the row's `review`; all others
/// are ignored. Without fields and layout, every text, number and boolean keeps its name. Layouts:
/// "prompt_completion" (prompt, completion, system), "alpaca" (instruction, input, output, system,
/// history), "messages" (messages: a list of {role, content}; or ShareGPT's conversations: a list
/// of {from, value}), "preference" (prompt or conversation, chosen, rejected: texts, messages, or
/// whole conversations).
Record record_of(const SourceOptions& options, const Row& row,
                 const nlohmann::ordered_json& object);

/// Replaces invalid UTF-8 in the text, which is counted as a change.
std::string sound_text(std::string text, const Row& row, Ledger& ledger);

}  // namespace attune
