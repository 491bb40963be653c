// A record's texts: what cleaning, masking and comparing look at.
#pragma once
#include <attune/dataset.hpp>
#include <nlohmann/json.hpp>

namespace attune {

/// use(text) for every text in a value: of a tool call's arguments also where they stand as JSON
/// text. Names of keys stay as they are.
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

/// The content, and the texts in what else the message holds: tool calls, reasoning.
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

/// use(text) for every field but `label`, and all texts of messages. Texts may be changed when the
/// record may. Definitions of tools are left as they are.
template <class AnyRecord, class Use>
void for_each_text(AnyRecord& record, Use use) {
  for (auto& [name, value] : record.fields)
    if (name != "label") use(value);
  for (auto& message : record.messages) for_each_message_text(message, use);
  for (auto& [name, messages] : record.answers)
    for (auto& message : messages) for_each_message_text(message, use);
}

}  // namespace attune
