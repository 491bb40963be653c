#include "prepare/conversation.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>

#include "core/names.hpp"

namespace attune {
namespace {

/// What roles are called: OpenAI's names, ShareGPT's, and those of single families of models.
const std::map<std::string, std::string>& roles() {
  static const std::map<std::string, std::string> all{
      {"system", "system"},   {"developer", "developer"},     {"user", "user"},
      {"human", "user"},      {"assistant", "assistant"},     {"gpt", "assistant"},
      {"model", "assistant"}, {"function_call", "assistant"}, {"tool", "tool"},
      {"function", "tool"},   {"observation", "tool"},        {"function_response", "tool"},
      {"ipython", "ipython"}, {"environment", "environment"}};
  return all;
}

enum class Use {
  structure,  // read by name
  template_reads,
  trains,    // true or 1: the message is learnt; false or 0: it is not
  masks,     // the other way round
  harmless,  // says nothing about what is learnt
  refused,   // where it says something
};

/// Every key of a message that a format in use has; any other is an error.
const std::map<std::string, Use>& uses() {
  static const std::map<std::string, Use> all = [] {
    std::map<std::string, Use> keys;
    const auto add = [&](Use use, std::initializer_list<const char*> names) {
      for (const auto* name : names) keys[name] = use;
    };
    add(Use::structure, {"role", "content", "from", "value", "tool_calls", "function_call"});
    add(Use::template_reads, {"name", "tool_call_id", "reasoning_content", "reasoning", "thinking",
                              "tool_plan", "tools", "functions"});
    add(Use::trains, {"weight", "train", "training", "trainable", "loss"});
    add(Use::masks, {"masked"});
    add(Use::harmless, {"id", "uuid", "created", "created_at", "create_time", "timestamp", "model",
                        "language", "markdown", "annotations"});
    add(Use::refused, {"mask", "train_detail", "prefix", "refusal", "audio", "audios", "image",
                       "images", "video", "videos"});
    return keys;
  }();
  return all;
}

std::vector<std::string> names_of(const auto& map) {
  std::vector<std::string> names;
  for (const auto& [name, what] : map) names.push_back(name);
  return names;
}

/// Good or bad, in any spelling: of TRL's unpaired preferences, which tables may hold as numbers or
/// texts.
bool is_verdict(const RowJson& label) {
  static const std::set<std::string> spellings{"true",  "false", "True", "False", "TRUE",
                                               "FALSE", "0",     "1",    "0.0",   "1.0"};
  return label.is_boolean() || label == 0 || label == 1 ||
         (label.is_string() && spellings.contains(label.get<std::string>()));
}

bool is_object_list(const RowJson& value) {
  return value.is_array() &&
         std::ranges::all_of(value, [](const auto& one) { return one.is_object(); });
}

/// Lists and tables may also stand as their JSON text.
RowJson parsed(const RowJson& value) {
  return value.is_string() ? RowJson::parse(value.get_ref<const std::string&>(), nullptr, false)
                           : value;
}

}  // namespace

bool says_nothing(const Message& message) {
  if (message.content.find_first_not_of(" \t\r\n") != std::string::npos) return false;
  if (message.extra.empty()) return true;
  const auto extra = RowJson::parse(message.extra);
  return std::ranges::none_of(
      std::array{"tool_calls", "reasoning_content", "reasoning", "thinking", "tool_plan"},
      [&](const char* key) { return extra.contains(key); });
}

// --- One message

/// BadRow unless the key is known and says nothing that is lost.
void ConversationReader::check_key(const std::string& key, const RowJson& value) const {
  const auto use = uses().find(key);
  if (use == uses().end()) {
    if (value.is_null()) return;
    bad_row(row_, "an unknown key of a message",
            "the key '{}' of a message is unknown{}; correct it, or leave it out with ignore = "
            "[\"{}\"] in the source",
            key, did_you_mean(key, names_of(uses())), key);
  }
  if (use->second != Use::refused || says_no(value)) return;
  if (key == "mask")
    bad_row(row_, "a key of a message that cannot be honoured",
            "the key 'mask' of a message is ambiguous: some formats train on masked messages, "
            "others ignore them; write train = true or false");
  bad_row(row_, "a key of a message that cannot be honoured",
          "the key '{}' of a message cannot be honoured; remove it, or leave it out with ignore = "
          "[\"{}\"] in the source",
          key, key);
}

/// Whether the message is learnt, as its keys say; what they cannot say is a BadRow.
bool ConversationReader::is_trained(const RowJson& entry, const std::string& role) const {
  std::optional<bool> trained;
  for (const auto& [key, value] : entry.items()) {
    const auto use = uses().find(key);
    if (use == uses().end() || value.is_null()) continue;
    if (use->second != Use::trains && use->second != Use::masks) continue;
    const bool yes = value == true || value == 1;
    const bool no = value == false || value == 0;
    if (!yes && !no)
      bad_row(row_, "a key of a message that cannot be honoured",
              "the key '{}' of a message is {} and should be 0, 1, false or true", key,
              value.dump());
    const bool wanted = yes == (use->second == Use::trains);
    if (trained.value_or(wanted) != wanted)
      bad_row(row_, "keys that contradict each other",
              "the key '{}' of a message contradicts another key on whether to train on it", key);
    if (wanted && role != "assistant" && use->second == Use::trains)
      bad_row(row_, "a key of a message that cannot be honoured",
              "the key '{}' asks to train on a message of the role '{}', but only answers are "
              "trained on; remove it",
              key, role);
    trained = wanted;
  }
  return trained.value_or(true);
}

/// A text, or parts of a text.
std::string ConversationReader::content(const RowJson& value) const {
  if (is_plain(value)) return value.is_string() ? value.get<std::string>() : value.dump();
  if (!is_object_list(value))
    bad_row(row_, "content that is not text",
            "the content of a message is {} and should be a text, or a list of parts with type and "
            "text",
            kind_of(value));
  std::string text;
  for (const auto& part : value) {
    const auto type = optional_text(row_, part, "type");
    if (type != "text" && type != "input_text" && type != "output_text")
      bad_row(row_, "content that is not text",
              "the content of a message has a part of type '{}', but only parts of type 'text' can "
              "be read",
              type);
    for (const auto& [key, more] : part.items())
      if (key != "type" && key != "text" && !says_no(more))
        bad_row(
            row_, "content that is not text",
            "a part of a message's content has the key '{}', which cannot be honoured; remove it",
            key);
    text += text_of(row_, part, "text");
  }
  return text;
}

/// Each call needs the name of its function; arguments stay as they are: a table, or its JSON text.
RowJson ConversationReader::checked_calls(RowJson calls) const {
  const auto is_call = [](const RowJson& call) {
    const auto* function = given(call, "function");
    const auto* name = given(function && function->is_object() ? *function : call, "name");
    return name && name->is_string() && !name->get_ref<const std::string&>().empty();
  };
  if (!is_object_list(calls) || calls.empty() || !std::ranges::all_of(calls, is_call))
    bad_row(row_, "a damaged tool call",
            "a message's tool calls should be a list of {{\"function\": {{\"name\": ..., "
            "\"arguments\": ...}}}}");
  return calls;
}

/// The calls of an assistant's message in OpenAI's form; null: none.
RowJson ConversationReader::tool_calls(const RowJson& entry) const {
  const auto as_call = [](const RowJson& function) {
    return RowJson{{"type", "function"}, {"function", function}};
  };
  const auto* calls = given(entry, "tool_calls");
  const auto* older = given(entry, "function_call");
  const bool has_calls = calls && !says_no(*calls);
  const bool has_older = older && !says_no(*older);
  if (has_calls && has_older)
    bad_row(row_, "a damaged tool call",
            "a message has both tool_calls and function_call; keep one of them");
  if (has_calls) return checked_calls(parsed(*calls));
  if (has_older) return checked_calls(RowJson::array({as_call(parsed(*older))}));
  const auto* from = given(entry, "from");
  if (!from || *from != "function_call") return nullptr;
  // ShareGPT's: the message's text is one function's JSON, or a list of them.
  auto functions = parsed(member(row_, entry, "value"));
  if (functions.is_object()) functions = RowJson::array({std::move(functions)});
  auto result = RowJson::array();
  if (functions.is_array())
    for (const auto& function : functions) result.push_back(as_call(function));
  return checked_calls(std::move(result));
}

/// What a template can read of a message beside its role and its text.
RowJson ConversationReader::extra(const RowJson& entry) const {
  auto extra = RowJson::object();
  if (auto calls = tool_calls(entry); !calls.is_null()) extra["tool_calls"] = std::move(calls);
  for (const auto& [key, value] : entry.items()) {
    const auto use = uses().find(key);
    if (use == uses().end() || use->second != Use::template_reads || says_no(value)) continue;
    extra[key] = value;
  }
  return extra;
}

/// {role, content} or {from, value}
Message ConversationReader::message(const RowJson& entry) const {
  if (!entry.is_object())
    bad_row(row_, "a message is not a table",
            "an entry of its messages is not a table with role and content");
  const bool share_gpt = given(entry, "from");
  if (share_gpt && given(entry, "role"))
    bad_row(row_, "keys that contradict each other",
            "a message has both 'role' and 'from'; keep one of them");
  for (const auto& [key, value] : entry.items()) check_key(key, value);
  const auto* other = given(entry, share_gpt ? "content" : "value");
  if (other)
    bad_row(row_, "keys that contradict each other", "a message has {}",
            share_gpt ? "'from' and 'content'; use 'value'" : "'role' and 'value'; use 'content'");

  const auto name = text_of(row_, entry, share_gpt ? "from" : "role");
  const auto role = roles().find(name);
  if (role == roles().end())
    bad_row(row_, "an unknown role", "the role '{}' is not one of {}{}", name,
            joined(names_of(roles())), did_you_mean(name, names_of(roles())));
  Message message{role->second, ""};
  message.train = is_trained(entry, message.role);
  auto extra = this->extra(entry);
  if (extra.contains("tool_calls") && message.role != "assistant")
    bad_row(row_, "a damaged tool call",
            "a message of the role '{}' calls a tool, which only the assistant may do", name);
  const auto* text = given(entry, share_gpt ? "value" : "content");
  if (text && name != "function_call") {
    message.content = content(*text);
  } else if (message.role == "assistant" && !extra.empty()) {
    extra["content"] = nullptr;
  } else {
    bad_row(row_, "a message without content", "a message of the role '{}' has no content", name);
  }
  if (!extra.empty()) message.extra = extra.dump(-1, ' ', false, RowJson::error_handler_t::replace);
  return message;
}

// --- Conversations

std::vector<Message> ConversationReader::messages(const std::string& key,
                                                  const std::string& role) const {
  const auto& value = member(row_, object_, key);
  if (value.is_object()) return {message(value)};
  if (!value.is_array()) return {{role, text_of(row_, object_, key)}};
  if (value.empty())
    bad_row(row_, "no list of messages",
            "'{}' should be a list of {{role, content}} with at least one entry", key);
  std::vector<Message> messages;
  for (const auto& entry : value) messages.push_back(message(entry));
  return messages;
}

std::vector<Message> ConversationReader::conversation() const {
  std::vector<std::string> keys;
  for (const auto* key : {"messages", "conversations", "conversation"})
    if (given(object_, key)) keys.emplace_back(key);
  if (keys.size() > 1 && object_.at(keys[0]) != object_.at(keys[1]))
    bad_row(row_, "keys that contradict each other",
            "'{}' and '{}' contain two conversations; keep one of them", keys[0], keys[1]);
  const auto key = keys.empty() ? "messages" : keys.front();
  if (const auto& value = member(row_, object_, key); !value.is_array())
    bad_row(row_, "no list of messages",
            "'{}' should be a list of {{role, content}} with at least one entry", key);
  auto conversation = messages(key, "user");
  add_system(conversation);
  return conversation;
}

void ConversationReader::add_system(std::vector<Message>& messages) const {
  auto system = optional_text(row_, object_, "system");
  if (system.empty()) return;
  if (messages.front().role != "system")
    return void(messages.insert(messages.begin(), {"system", std::move(system)}));
  if (messages.front().content != system)
    bad_row(
        row_, "keys that contradict each other",
        "the field 'system' differs from the system message of the conversation; keep one of them");
}

// --- The row's own keys

void ConversationReader::check_keys() const {
  const auto refuse = [&](const std::string& key, const char* why) {
    bad_row(row_, "a key that cannot be honoured",
            "the key '{}' {}; remove it, or leave it out with ignore = [\"{}\"] in the source", key,
            why, key);
  };
  const auto says_something = [&](const char* key) {
    const auto* value = given(object_, key);
    return value && !says_no(*value);
  };
  for (const auto* key : {"image", "images", "video", "videos", "audio", "audios"})
    if (says_something(key)) refuse(key, "is not text, but conversations consist of text only");
  for (const auto* key : {"documents", "chat_template_kwargs"})
    if (says_something(key))
      refuse(key, "changes the chat template's output, and cannot be honoured");
  for (const auto* key : {"mask", "train", "loss", "masked"})
    if (given(object_, key))
      refuse(key,
             "sets for the whole row whether to train on it; set train = true or false for each "
             "message instead");
  if (const auto* weight = given(object_, "weight"); weight && *weight != 1)
    refuse("weight", "weights a single row, but only whole sources have a weight");
  if (const auto* label = given(object_, "label"); label && is_verdict(*label))
    refuse("label", "rates the answer, which is not used for training here");
  if (given(object_, "kto_tag"))
    refuse("kto_tag", "rates the answer, which is not used for training here");
}

RowJson ConversationReader::functions_of(const char* key) const {
  const auto* value = given(object_, key);
  if (!value || says_no(*value)) return RowJson::array();
  auto functions = parsed(*value);
  if (!is_object_list(functions))
    bad_row(row_, "damaged tools", "'{}' should be a list of functions, or its JSON text", key);
  return functions;
}

std::string ConversationReader::tools() const {
  auto tools = functions_of("tools");
  const auto functions = functions_of("functions");
  if (!tools.empty() && !functions.empty())
    bad_row(row_, "keys that contradict each other",
            "the row has both tools and functions; keep one of them");
  for (const auto& function : functions)
    tools.push_back({{"type", "function"}, {"function", function}});
  return tools.empty() ? "" : tools.dump(-1, ' ', false, RowJson::error_handler_t::replace);
}

}  // namespace attune
