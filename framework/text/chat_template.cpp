// chatml: <|im_start|>role\ncontent<|im_end|>\n for each message (OpenAI's Chat Markup Language), as SmolLM2, Qwen and others use it.
// plain: for models without marks of their own: "### role\ncontent\n### end\n".
#include <algorithm>
#include <array>

#include "attune/error.hpp"
#include "attune/tokenizer.hpp"
#include "core/names.hpp"

namespace attune {
namespace {

/// The text a template puts between the opening of a system turn and its end, when it is a literal one.
std::string literal_system_message(std::string_view jinja, std::string_view opening, std::string_view closing) {
  for (std::size_t at = 0; (at = jinja.find(opening, at)) != std::string_view::npos;) {
    at += opening.size();
    auto rest = jinja.substr(at);
    if (rest.starts_with("\\n"))
      rest.remove_prefix(2);
    else if (rest.starts_with('\n'))
      rest.remove_prefix(1);
    else
      continue;
    const auto message = rest.substr(0, rest.find(closing));
    if (message.size() < rest.size() && message.find_first_of("'\"{}") == std::string_view::npos) return std::string(message);
  }
  return "";
}

template <class Iterator, class Other>
std::size_t common(Iterator a, Iterator a_end, Other b, Other b_end) {
  return std::mismatch(a, a_end, b, b_end).first - a;
}

}  // namespace

std::vector<std::string> ChatTemplate::names() { return {"chatml", "plain"}; }

ChatTemplate ChatTemplate::by_name(std::string_view name) {
  ChatTemplate chat;
  chat.name_ = name;
  if (name == "chatml") {
    chat.before_role_ = "<|im_start|>";
    chat.after_role_ = "\n";
    chat.end_of_turn_ = "<|im_end|>";
    chat.after_turn_ = "\n";
  } else if (name == "plain") {
    chat.before_role_ = "### ";
    chat.after_role_ = "\n";
    chat.end_of_turn_ = "\n### end";
    chat.after_turn_ = "\n";
  } else {
    fail("there is no chat template '{}'{}; there are {}", name, did_you_mean(name, names()), joined(names()));
  }
  return chat;
}

ChatTemplate ChatTemplate::recognise(std::string_view jinja) {
  const auto has = [&](std::string_view mark) { return jinja.find(mark) != std::string_view::npos; };
  // What rewrites the messages or opens with other tokens is not plain ChatML, although it uses its marks.
  const std::array<std::string_view, 3> foreign = {"<think>", "bos_token", "trim"};
  if (!has("<|im_start|>") || !has("<|im_end|>") || std::any_of(foreign.begin(), foreign.end(), has))
    fail("the model's own chat template is not one that is known; choose one by the option chat_template: {}", joined(names()));
  auto chat = by_name("chatml");
  chat.default_system_ = literal_system_message(jinja, "<|im_start|>system", "<|im_end|>");
  return chat;
}

void ChatTemplate::append(const Message& message, const Tokenizer& tokenizer, Conversation& conversation) const {
  const auto header = header_of(message.role);
  const auto ids = tokenizer.encode(header + message.content + end_of_turn_ + after_turn_, false);
  conversation.tokens.insert(conversation.tokens.end(), ids.begin(), ids.end());
  conversation.answer.resize(conversation.tokens.size(), 0);
  if (message.role != "assistant") return;
  // The message is encoded whole, as the model has learnt it; a token across the border of header and content belongs to the answer.
  const auto head = tokenizer.encode(header, false);
  const auto tail = tokenizer.encode(after_turn_, false);
  const auto first = common(ids.begin(), ids.end(), head.begin(), head.end());
  const auto after = common(ids.rbegin(), ids.rend(), tail.rbegin(), tail.rend());
  std::fill(conversation.answer.end() - (ids.size() - first), conversation.answer.end() - after, 1);
}

Conversation ChatTemplate::encode(const std::vector<Message>& messages, const Tokenizer& tokenizer) const {
  Conversation conversation;
  if (!messages.empty() && messages[0].role != "system" && !default_system_.empty())
    append({"system", default_system_}, tokenizer, conversation);
  for (const auto& message : messages) append(message, tokenizer, conversation);
  return conversation;
}

std::vector<std::int32_t> ChatTemplate::prompt(const std::vector<Message>& messages, const Tokenizer& tokenizer) const {
  auto tokens = encode(messages, tokenizer).tokens;
  const auto opening = tokenizer.encode(header_of("assistant"), false);
  tokens.insert(tokens.end(), opening.begin(), opening.end());
  return tokens;
}

std::string ChatTemplate::header_of(std::string_view role) const { return before_role_ + std::string(role) + after_role_; }

}  // namespace attune
