// A row of a source, and the record it becomes.
#pragma once
#include <fmt/core.h>

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "prepare/source.hpp"

namespace attune {

struct Row {
  const std::string& source;
  std::int64_t number;
  std::string where() const { return fmt::format("{}, row {}", source, number); }
};

/// Throws BadRow: "<where>: <text>".
template <class... Args>
[[noreturn]] void bad_row(const Row& row, const char* reason, fmt::format_string<Args...> text,
                          Args&&... args) {
  throw BadRow(reason, row.where() + ": " + fmt::format(text, std::forward<Args>(args)...));
}

/// Fields and layouts give the record its fields or messages:
///
/// fields = { text = "review" } gives the record's field `text` the value of the source's `review`,
/// and leaves all others out. Without fields or layout every text, number and boolean keeps its
/// name. Layouts: "prompt_completion" (prompt, completion, system), "alpaca" (instruction, input,
/// output, system, history), "messages" (messages: a list of {role, content}; or ShareGPT's
/// conversations: a list of {from, value}), "preference" (prompt or conversation, chosen, rejected:
/// texts, messages, or whole conversations).
Record record_of(const SourceOptions& options, const Row& row,
                 const nlohmann::ordered_json& object);

/// The text with ill-formed UTF-8 replaced, which is counted as a change.
std::string sound_text(std::string text, const Row& row, Ledger& ledger);

}  // namespace attune
