#include "prepare/row.hpp"

#include <algorithm>
#include <cmath>

#include "prepare/conversation.hpp"
#include "prepare/values.hpp"
#include "text/unicode.hpp"

namespace attune {
namespace {

/// The row labels that pandas writes: into Parquet under a name of its own, into CSV without one.
bool is_index(const std::string& key) { return key.empty() || key.starts_with("__index_level_"); }

bool is_plain_list(const RowJson& value) {
  return value.is_array() && std::ranges::all_of(value, is_plain);
}

/// A label that is a number has one name in every file: a column of integers becomes one of floats
/// as soon as a value is missing.
RowJson with_whole_label(const RowJson& value) {
  constexpr double exact = 1LL << 53;
  if (!value.is_number_float()) return value;
  const auto number = value.get<double>();
  const bool whole = number == std::floor(number) && std::abs(number) < exact;
  return whole ? RowJson(static_cast<std::int64_t>(number)) : value;
}

/// Fields that are lists by their name.
bool is_list(const std::string& field) {
  return field == "labels" || field == "words" || field == "tags";
}

/// CSV has no lists, but texts of them.
RowJson with_list_read(const RowJson& value) {
  const bool is_text = value.is_string() && value.get_ref<const std::string&>().starts_with('[');
  if (!is_text) return value;
  const auto list = RowJson::parse(value.get_ref<const std::string&>(), nullptr, false);
  return is_plain_list(list) ? list : value;
}

bool holds_labels(const std::string& field) {
  return field == "label" || field == "labels" || field == "tags";
}

std::string as_text(const RowJson& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

/// Sets a text or a list.
void set_field(const Row& row, const RowJson& object, const std::string& field,
               const std::string& key, Record& record) {
  const auto& given_value = member(row, object, key);
  const auto value = is_list(field) ? with_list_read(given_value) : given_value;
  const auto stored = [&](const RowJson& plain) {
    return as_text(holds_labels(field) ? with_whole_label(plain) : plain);
  };
  if (is_plain_list(value)) {
    auto& list = record.lists[field];
    for (const auto& element : value) list.push_back(stored(element));
  } else {
    record.fields[field] = is_plain(value) ? stored(value) : text_of(row, object, key);
  }
}

/// instruction and, where there is one, its input, as one prompt.
std::string alpaca_prompt(const Row& row, const RowJson& object) {
  const auto instruction = text_of(row, object, "instruction");
  const auto input = optional_text(row, object, "input");
  return instruction + (instruction.empty() || input.empty() ? "" : "\n\n") + input;
}

/// LLaMA-Factory's `history`: earlier questions and answers, which are learnt, too.
std::vector<Message> alpaca_history(const Row& row, const RowJson& history) {
  std::vector<Message> messages;
  const auto is_turn = [](const RowJson& turn) {
    return turn.is_array() && turn.size() == 2 && turn[0].is_string() && turn[1].is_string();
  };
  if (!history.is_array() || !std::ranges::all_of(history, is_turn))
    bad_row(row, "a damaged history", "'history' should be a list of [question, answer]");
  for (const auto& turn : history) {
    messages.push_back({"user", turn[0].get<std::string>()});
    messages.push_back({"assistant", turn[1].get<std::string>()});
  }
  return messages;
}

void set_alpaca(const Row& row, const RowJson& object, Record& record) {
  auto prompt = alpaca_prompt(row, object);
  auto response = text_of(row, object, "output");
  const auto* history = given(object, "history");
  if (!history || says_no(*history)) {
    record.fields["prompt"] = std::move(prompt);
    record.fields["response"] = std::move(response);
    if (auto system = optional_text(row, object, "system"); !system.empty())
      record.fields["system"] = std::move(system);
    return;
  }
  record.messages = alpaca_history(row, *history);
  record.messages.push_back({"user", std::move(prompt)});
  record.messages.push_back({"assistant", std::move(response)});
  ConversationReader(row, object).add_system(record.messages);
}

/// Texts, or messages on either side. The completion alone is learnt.
void set_completion(const Row& row, const RowJson& object, Record& record) {
  if (is_plain(member(row, object, "prompt")) && is_plain(member(row, object, "completion"))) {
    record.fields["prompt"] = text_of(row, object, "prompt");
    record.fields["response"] = text_of(row, object, "completion");
    if (auto system = optional_text(row, object, "system"); !system.empty())
      record.fields["system"] = std::move(system);
    return;
  }
  const ConversationReader reader(row, object);
  record.messages = reader.messages("prompt", "user");
  reader.add_system(record.messages);
  for (auto& message : record.messages) message.train = false;
  for (auto& message : reader.messages("completion", "assistant"))
    record.messages.push_back(std::move(message));
}

/// OpenAI's names of what a pair consists of, under ours.
RowJson with_usual_names(const Row& row, const RowJson& object) {
  if (!given(object, "preferred_output")) return object;
  const auto& input = member(row, object, "input");
  if (!input.is_object())
    bad_row(row, "no list of messages",
            "'input' should be a table with messages, beside preferred_output");
  auto pair = object;
  pair.update(input);
  pair["chosen"] = member(row, object, "preferred_output");
  pair["rejected"] = member(row, object, "non_preferred_output");
  return pair;
}

void set_conversation(const std::string& layout, const Row& row, const RowJson& object,
                      Record& record) {
  const ConversationReader reader(row, object);
  reader.check_keys();
  if (layout == "messages") record.messages = reader.conversation();
  if (layout == "preference") reader.set_preference(record);
  if (layout == "alpaca") set_alpaca(row, object, record);
  if (layout == "prompt_completion") set_completion(row, object, record);
  record.tools = reader.tools();
}

void erase_keys(RowJson& object, const std::vector<std::string>& keys) {
  for (const auto& key : keys) object.erase(key);
}

/// The row as if the keys were not there, neither its own nor those of its messages.
RowJson without(RowJson object, const std::vector<std::string>& keys) {
  erase_keys(object, keys);
  for (auto& value : object) {
    if (value.is_object()) erase_keys(value, keys);
    if (value.is_array())
      for (auto& entry : value)
        if (entry.is_object()) erase_keys(entry, keys);
  }
  return object;
}

}  // namespace

Record record_of(const SourceOptions& options, const Row& row, const RowJson& object) {
  if (!object.is_object())
    bad_row(row, "not a JSON object", "is not a JSON object ({{...}}), but a record must be one");
  Record record;
  record.source = row.source;
  record.row = row.number;
  if (!options.layout.empty()) {
    const auto named = options.layout == "preference" ? with_usual_names(row, object) : object;
    set_conversation(options.layout, row, without(named, options.ignore), record);
  } else if (!options.fields.empty()) {
    for (const auto& [name, key] : options.fields) set_field(row, object, name, key, record);
  } else {
    for (const auto& [key, value] : object.items())
      if (is_index(key))
        continue;
      else if (is_plain(value) || (is_list(key) && is_plain_list(value)))
        set_field(row, object, key, key, record);
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
