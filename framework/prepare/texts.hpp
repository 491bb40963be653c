// Access to the texts of a record, for cleaning, masking and comparison.
#pragma once
#include <attune/dataset.hpp>
#include <nlohmann/json.hpp>

namespace attune {

/// Calls use(text) for every text in a value, including texts in JSON-encoded tool call arguments.
/// Keys are not visited.
template <class Use>
void for_each_json_text(nlohmann::ordered_json& value, Use& use) {
  using Json = nlohmann::ordered_json;
  if (value.is_structured()) {
    for (auto& part : value) for_each_json_text(part, use);
  } else if (value.is_string()) {
    auto& text = value.get_ref<std::string&>();
    auto inner =
        text.starts_with('{') || text.starts_with('[') ? Json::parse(text, nullptr, false) : Json();
    if (!inner.is_structured()) return use(text);
    const auto before = inner;
    for_each_json_text(inner, use);
    if (inner != before) text = inner.dump(-1, ' ', false, Json::error_handler_t::replace);
  }
}

/// Visits the content and the texts in the message's extra keys: tool calls, reasoning.
template <class AnyMessage, class Use>
void for_each_message_text(AnyMessage& message, Use& use) {
  use(message.content);
  if (message.extra.empty()) return;
  auto extra = nlohmann::ordered_json::parse(message.extra);
  const auto before = extra;
  for_each_json_text(extra, use);
  if constexpr (!std::is_const_v<AnyMessage>)
    if (extra != before)
      message.extra = extra.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

/// Calls use(text) for every field except `label`, for the elements of lists, and for all texts of
/// messages; it may modify
/// them if the record is not const. Tool definitions are not visited.
template <class AnyRecord, class Use>
void for_each_text(AnyRecord& record, Use use) {
  for (auto& [name, value] : record.fields)
    if (name != "label") use(value);
  for (auto& [name, list] : record.lists)
    for (auto& element : list) use(element);
  for (auto& message : record.messages) for_each_message_text(message, use);
  for (auto& [name, messages] : record.answers)
    for (auto& message : messages) for_each_message_text(message, use);
}

}  // namespace attune
