// A model's own chat template: the text is what Jinja renders; which part of it is an answer
// follows from rendering parts of the conversation.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "attune/error.hpp"
#include "attune/rejected.hpp"
#include "text/chat_writer.hpp"
#include "text/jinja.hpp"
#include "text/python_text.hpp"
#include "text/unicode.hpp"

namespace attune::text {
namespace {

using jinja::Value;
using jinja::Values;
using nlohmann::ordered_json;

template <class... Args>
[[noreturn]] void reject(fmt::format_string<Args...> text, Args&&... args) {
  throw Rejected(fmt::format(text, std::forward<Args>(args)...));
}

ordered_json parsed(std::string_view text, const char* what) {
  auto json = ordered_json::parse(text, nullptr, false);
  if (json.is_discarded()) reject("{} is not JSON", what);
  return json;
}

/// As transformers hands a message over: without what is null, with reasoning under each of the
/// names that templates read.
Value value_of(const Message& message) {
  ordered_json whole{{"role", valid_utf8(message.role)}, {"content", valid_utf8(message.content)}};
  const auto extra = message.extra.empty()
                         ? ordered_json::object()
                         : parsed(message.extra, "what a message holds besides its text");
  for (const auto& [key, value] : extra.items()) whole[key] = value;
  ordered_json given = ordered_json::object();
  for (const auto& [key, value] : whole.items())
    if (!value.is_null()) given[key] = value;
  for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
    if (!given.contains(name)) continue;
    const ordered_json reasoning = given[name];
    whole = {{"thinking", reasoning}};
    whole.update(given);
    whole["reasoning_content"] = reasoning;
    return Value::from_json(whole);
  }
  return Value::from_json(given);
}

Value tools_of(std::string_view tools) {
  if (tools.empty()) return jinja::None{};
  const auto list = parsed(tools, "the list of tools");
  if (list.is_null()) return jinja::None{};
  const auto is_object = [](const ordered_json& tool) { return tool.is_object(); };
  if (!list.is_array() || !std::all_of(list.begin(), list.end(), is_object))
    reject("the tools are not a list of JSON objects");
  return Value::from_json(list);
}

std::size_t shared_beginning(std::string_view a, std::string_view b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                                  a.begin());
}

/// Ours alone; no template and no message writes it.
constexpr std::string_view sentinel = "\U000F5A11answer\U000F5A11";

/// A conversation under one template, to be rendered whole and in part.
class Conversation {
 public:
  Conversation(const jinja::Template& jinja, const std::map<std::string, std::string>& tokens,
               const std::vector<Message>& messages, std::string_view tools)
      : jinja_(jinja), tokens_(tokens), tools_(tools_of(tools)) {
    for (const auto& message : messages) messages_.push_back(value_of(message));
  }

  /// The first `count` messages. Failure as the template has it.
  jinja::Rendering render(std::size_t count, bool asks) const {
    return render(first(count), tools_, asks);
  }

  /// Nothing: the template refuses them.
  std::optional<std::string> try_render(std::size_t count, bool asks) const {
    return try_render(first(count), tools_, asks);
  }

  /// The first `count` messages, one of which says something else.
  std::optional<std::string> try_render_with(std::size_t count, std::size_t index,
                                             std::string_view content, bool asks = false) const {
    auto messages = first(count);
    say(messages[index], content);
    return try_render(std::move(messages), tools_, asks);
  }

  /// All messages, these with a mark of their own behind their text.
  std::optional<std::string> try_render_marked(const std::vector<std::size_t>& indices,
                                               bool asks) const {
    auto messages = messages_;
    for (const auto index : indices) {
      const auto* content = messages[index].find(Value("content"));
      if (content && content->is_text()) say(messages[index], content->text() + mark(index));
    }
    return try_render(std::move(messages), tools_, asks);
  }

  static std::string mark(std::size_t index) {
    return fmt::format("{}{}{}", sentinel, index, sentinel);
  }

  /// The first `count` messages, one of which lacks these keys.
  std::optional<std::string> try_render_without(std::size_t count, std::size_t index,
                                                std::initializer_list<const char*> keys,
                                                bool asks) const {
    auto messages = first(count);
    auto changed = *messages[index].dict();
    std::erase_if(changed, [&](const auto& item) {
      return std::ranges::any_of(keys, [&](const char* key) { return item.first == Value(key); });
    });
    messages[index] = Value::dict(std::move(changed));
    return try_render(std::move(messages), tools_, asks);
  }

  std::optional<std::string> try_render_without_tools(bool asks) const {
    return try_render(messages_, jinja::None{}, asks);
  }

  /// Whether a message has something under this key; an empty text is nothing.
  bool has(std::size_t index, const char* key) const {
    const auto* value = messages_[index].find(Value(key));
    return value && !(value->is_text() && python::stripped(value->text()).empty());
  }

  /// Whether a message holds this text anywhere.
  bool says(std::size_t index, std::string_view text) const {
    return jinja::dumps(messages_[index], {})
               .find(python::json(text, false).substr(1, text.size())) != std::string::npos;
  }

  bool has_tools() const { return tools_.truth(); }
  std::size_t size() const { return messages_.size(); }

 private:
  static void say(Value& message, std::string_view content) {
    auto changed = *message.dict();
    const auto found = std::find_if(changed.begin(), changed.end(), [](const auto& item) {
      return item.first == Value("content");
    });
    if (found == changed.end())
      changed.emplace_back("content", content);
    else
      found->second = Value(content);
    message = Value::dict(std::move(changed));
  }

  Values first(std::size_t count) const {
    return {messages_.begin(), messages_.begin() + static_cast<std::ptrdiff_t>(count)};
  }

  std::optional<std::string> try_render(Values messages, const Value& tools, bool asks) const {
    try {
      return render(std::move(messages), tools, asks).text;
    } catch (const jinja::Failure&) {
      return std::nullopt;
    }
  }

  jinja::Rendering render(Values messages, const Value& tools, bool asks) const {
    jinja::Variables variables{{"messages", Value::list(std::move(messages))},
                               {"tools", tools},
                               {"documents", jinja::None{}},
                               {"add_generation_prompt", asks}};
    for (const auto& [name, token] : tokens_) variables.emplace_back(name, token);
    return jinja_.render(variables);
  }

  const jinja::Template& jinja_;
  const std::map<std::string, std::string>& tokens_;
  Value tools_;
  Values messages_;
};

/// Rejects a conversation of which the template silently leaves out a part: the text would be the
/// same without it. What it writes of earlier answers is its own affair: many leave out their
/// reasoning.
class WholeConversation {
 public:
  WholeConversation(const Conversation& conversation, const std::string& whole, bool asks)
      : conversation_(conversation), whole_(whole), asks_(asks) {}

  void check(const std::vector<Message>& messages) const {
    if (conversation_.has_tools() && conversation_.try_render_without_tools(asks_) == whole_)
      reject(
          "the chat template omits the tools; drop them with ignore = [\"tools\"] in the source, "
          "or use another template");
    std::vector<std::size_t> unclear;
    std::size_t at = 0;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      if (messages[i].role == "assistant")
        check_answer(i);
      else if (!stands(i, messages, at))
        unclear.push_back(i);
    }
    check_texts(messages, unclear);
  }

 private:
  /// Whether a text stands where it should, behind those before it, and neither by chance, being
  /// short, nor for a later message of its words.
  bool stands(std::size_t index, const std::vector<Message>& messages, std::size_t& at) const {
    const auto said = python::stripped(messages[index].content);
    if (said.empty()) return true;
    constexpr std::size_t telling = 16;
    if (said.size() < telling || is_said_again(messages, index)) return false;
    const auto found = whole_.find(said, at);
    if (found != std::string::npos) at = found + said.size();
    return found != std::string::npos;
  }

  static bool is_said_again(const std::vector<Message>& messages, std::size_t index) {
    const auto& said = messages[index].content;
    const auto says_it = [&](const Message& later) {
      return later.content == said || later.extra.find(said) != std::string::npos;
    };
    return std::any_of(messages.begin() + static_cast<std::ptrdiff_t>(index) + 1, messages.end(),
                       says_it);
  }

  /// All of them with marks in one rendering; those whose mark is not in it, one by one.
  void check_texts(const std::vector<Message>& messages,
                   const std::vector<std::size_t>& indices) const {
    if (indices.empty()) return;
    const auto count = conversation_.size();
    const auto marked = conversation_.try_render_marked(indices, asks_);
    for (const auto index : indices) {
      if (marked && marked->find(Conversation::mark(index)) != std::string::npos) continue;
      if (conversation_.try_render_with(
              count, index, messages[index].content + std::string(sentinel), asks_) == whole_)
        reject("the chat template omits the message of the role '{}'", messages[index].role);
    }
  }

  void check_answer(std::size_t index) const {
    const auto count = conversation_.size();
    if (conversation_.has(index, "tool_calls") &&
        conversation_.try_render_without(count, index, {"tool_calls"}, asks_) == whole_)
      reject("the chat template omits the tool calls");
    if (!conversation_.has(index, "reasoning_content") ||
        without_reasoning(count, index, asks_) != whole_)
      return;
    // As the last message it has its reasoning, if any message has.
    const auto last = conversation_.try_render(index + 1, false);
    if (last && without_reasoning(index + 1, index, false) == last)
      reject("the chat template omits the reasoning of an answer");
  }

  std::optional<std::string> without_reasoning(std::size_t count, std::size_t index,
                                               bool asks) const {
    return conversation_.try_render_without(count, index,
                                            {"reasoning_content", "thinking", "reasoning"}, asks);
  }

  const Conversation& conversation_;
  const std::string& whole_;
  bool asks_;
};

/// How a template ends an answer, found by one that holds the sentinel alone.
struct Ending {
  std::string closing;  // after every answer: "<|im_end|>"
  std::string surplus;  // what only the last one has behind it: "<|endoftext|>"
  // where generation stops: the last mark of the closing, or the one that begins the next turn
  // where there is none
  std::string mark;
};

/// A mark that begins in the text but ends behind it belongs to none of two texts that share its
/// beginning.
std::string_view without_open_mark(std::string_view text) {
  const auto open = text.rfind('<');
  const auto closed = text.rfind('>');
  return open != std::string_view::npos && (closed == std::string_view::npos || closed < open)
             ? text.substr(0, open)
             : text;
}

std::string_view without_space_behind(std::string_view text) {
  const auto rest = python::stripped(text, python::Ends::right);
  return rest.empty() ? text : rest;
}

/// With the white space before it; "": the text begins with no mark.
std::string_view first_mark(std::string_view text) {
  const auto end = text.find('>');
  return python::stripped(text, python::Ends::left).starts_with('<') &&
                 end != std::string_view::npos
             ? text.substr(0, end + 1)
             : "";
}

std::string_view last_mark(std::string_view text) {
  const auto begin = text.rfind('<');
  return text.ends_with('>') && begin != std::string_view::npos ? text.substr(begin) : text;
}

std::optional<std::string> behind_sentinel(const std::optional<std::string>& text) {
  const auto at = text ? text->find(sentinel) : std::string::npos;
  return at == std::string::npos ? std::nullopt : std::optional(text->substr(at + sentinel.size()));
}

Ending ending_of(const jinja::Template& jinja, const std::map<std::string, std::string>& tokens) {
  const std::vector<Message> messages = {
      {"user", "a"}, {"assistant", std::string(sentinel)}, {"user", "b"}};
  const Conversation conversation(jinja, tokens, messages, "");
  const auto last = behind_sentinel(conversation.try_render(2, false));
  const auto middle = behind_sentinel(conversation.try_render(3, false));
  if (!last) return {};
  const auto shared =
      middle
          ? without_open_mark(std::string_view(*last).substr(0, shared_beginning(*last, *middle)))
          : *last;
  auto closing = std::string(without_space_behind(shared));
  if (closing.empty()) closing = without_space_behind(*last);
  const auto stripped = python::stripped(closing);
  const auto mark = stripped.empty() && middle ? first_mark(*middle) : last_mark(stripped);
  return {closing, shared.empty() ? "" : last->substr(shared.size()), std::string(mark)};
}

class JinjaWriter final : public ChatWriter {
 public:
  explicit JinjaWriter(const ChatSource& source) : tokens_(source.tokens), plain_(source.jinja) {
    if (!source.tool_use.empty()) tool_use_.emplace(source.tool_use);
    ending_ = ending_of(plain_, tokens_);
  }

  Script write(const std::vector<Message>& messages, const Tokenizer&,
               std::string_view tools) const override {
    if (messages.empty()) return {};
    return allowed([&] {
      const auto& jinja = chosen(tools);
      const Conversation conversation(jinja, tokens_, messages, tools);
      auto whole = conversation.render(messages.size(), false);
      WholeConversation(conversation, whole.text, false).check(messages);
      if (jinja.marks_answers()) return marked(messages, std::move(whole));
      Script script{std::move(whole.text), {}};
      for (std::size_t i = 0; i < messages.size(); ++i)
        if (messages[i].role == "assistant" && messages[i].train)
          script.answers.push_back(answer(conversation, i, script.text));
      return script;
    });
  }

  std::string prompt(const std::vector<Message>& messages, const Tokenizer&,
                     std::string_view tools) const override {
    return allowed([&] {
      const Conversation conversation(chosen(tools), tokens_, messages, tools);
      auto whole = conversation.render(messages.size(), true).text;
      WholeConversation(conversation, whole, true).check(messages);
      return whole;
    });
  }

  const std::string& end_of_turn() const override { return ending_.mark; }

 private:
  /// As transformers chooses: a template for tools where there is one, and there are tools.
  const jinja::Template& chosen(std::string_view tools) const {
    return tool_use_ && !tools.empty() ? *tool_use_ : plain_;
  }

  template <class Work>
  static auto allowed(Work work) -> decltype(work()) {
    try {
      return work();
    } catch (const jinja::Failure& failure) {
      reject("the chat template refuses the conversation: {}", failure.what());
    }
  }

  /// {% generation %} blocks say what an answer is, one for each.
  static Script marked(const std::vector<Message>& messages, jinja::Rendering whole) {
    std::vector<bool> trained;
    for (const auto& message : messages)
      if (message.role == "assistant") trained.push_back(message.train);
    const bool all = std::find(trained.begin(), trained.end(), false) == trained.end();
    if (all) return {std::move(whole.text), std::move(whole.generated)};
    if (trained.size() != whole.generated.size())
      reject(
          "the chat template does not mark each answer, so no answer can be excluded from "
          "training");
    Script script{std::move(whole.text), {}};
    for (std::size_t i = 0; i < trained.size(); ++i)
      if (trained[i]) script.answers.push_back(whole.generated[i]);
    return script;
  }

  /// From where the prompt for it ends to its closing mark.
  Span answer(const Conversation& conversation, std::size_t index, const std::string& whole) const {
    const bool last = index + 1 == conversation.size();
    const auto before = index > 0 ? conversation.try_render(index, true) : std::nullopt;
    const bool begins = before && whole.starts_with(*before);
    if (begins && last) return closed(whole, before->size(), whole.size(), true);
    const auto after = begins && ending_.surplus.empty() ? conversation.try_render(index + 1, false)
                                                         : std::nullopt;
    if (after && whole.starts_with(*after) && after->size() > before->size())
      return closed(whole, before->size(), after->size(), false);
    return rewritten(conversation, index, whole, before);
  }

  /// Without the white space behind the closing mark, and what only the last answer has there.
  Span closed(std::string_view whole, std::size_t begin, std::size_t end, bool last) const {
    auto text = whole.substr(begin, end - begin);
    if (last && !ending_.surplus.empty() && text.ends_with(ending_.surplus))
      text.remove_suffix(ending_.surplus.size());
    if (!text.ends_with(ending_.closing)) text = without_space_behind(text);
    return {begin, begin + text.size()};
  }

  /// Templates that say a message otherwise once others follow: the answer is found by putting
  /// something else in its place.
  Span rewritten(const Conversation& conversation, std::size_t index, std::string_view whole,
                 const std::optional<std::string>& before) const {
    const auto other = conversation.try_render_with(conversation.size(), index, sentinel);
    const auto place = other ? other->find(sentinel) : std::string::npos;
    if (place == std::string::npos || whole.substr(0, place) != other->substr(0, place))
      return to_mark(conversation, index, whole, before);
    const auto behind = std::string_view(*other).substr(place + sentinel.size());
    if (!whole.ends_with(behind) || whole.size() - behind.size() < place)
      return to_mark(conversation, index, whole, before);
    const auto content_end = whole.size() - behind.size();
    const auto alone = behind_sentinel(conversation.try_render_with(index + 1, index, sentinel));
    return {beginning(whole, place, before),
            content_end + turn_end(behind, alone, index + 1 == conversation.size())};
  }

  /// Where even that changes what is around it, as with a tool call that has no text: up to the
  /// first mark that ends a turn, if the message itself does not hold it.
  Span to_mark(const Conversation& conversation, std::size_t index, std::string_view whole,
               const std::optional<std::string>& before) const {
    if (!before || !whole.starts_with(*before) || ending_.mark.empty() ||
        conversation.says(index, ending_.mark))
      lost();
    const auto mark = whole.find(ending_.mark, before->size());
    if (mark == std::string_view::npos) lost();
    return {before->size(), mark + ending_.mark.size()};
  }

  [[noreturn]] static void lost() {
    reject("the chat template changes an answer, so it cannot be located in the output");
  }

  /// Where the prompt ends before the content: what the prompt ends with is looked for there.
  static std::size_t beginning(std::string_view whole, std::size_t content,
                               const std::optional<std::string>& before) {
    if (!before) return content;
    if (before->size() <= content && whole.starts_with(*before)) return before->size();
    constexpr std::size_t length = 8;
    constexpr std::size_t reach = 64;
    const auto tail =
        std::string_view(*before).substr(before->size() - std::min(length, before->size()));
    const auto found = whole.substr(0, content).rfind(tail);
    if (tail.empty() || found == std::string_view::npos || content - found - tail.size() > reach)
      return content;
    return found + tail.size();
  }

  /// How far the turn goes on behind the content: as far as it does when it is the last, too.
  std::size_t turn_end(std::string_view behind, const std::optional<std::string>& alone,
                       bool last) const {
    if (last) return closed(behind, 0, behind.size(), true).end;
    if (!alone) {
      const auto found = behind.find(ending_.closing);
      if (ending_.closing.empty() || found == std::string_view::npos) lost();
      return found + ending_.closing.size();
    }
    const auto shared = without_open_mark(behind.substr(0, shared_beginning(behind, *alone)));
    if (const auto found = shared.rfind(ending_.closing); found != std::string_view::npos)
      return found + ending_.closing.size();
    // The last answer has a mark of its own: the one that stands here is this one's.
    const auto mark = first_mark(behind.substr(shared.size()));
    if (mark.empty()) lost();
    return shared.size() + mark.size();
  }

  std::map<std::string, std::string> tokens_;
  jinja::Template plain_;
  std::optional<jinja::Template> tool_use_;
  Ending ending_;
};

/// A template that cannot be read: an error for whoever needs it, which not every kind of data
/// does.
class UnreadableWriter final : public ChatWriter {
 public:
  explicit UnreadableWriter(std::string problem) : problem_(std::move(problem)) {}

  Script write(const std::vector<Message>&, const Tokenizer&, std::string_view) const override {
    refuse();
  }
  std::string prompt(const std::vector<Message>&, const Tokenizer&,
                     std::string_view) const override {
    refuse();
  }
  const std::string& end_of_turn() const override { return none_; }

 private:
  [[noreturn]] void refuse() const {
    fail("{}; choose another with template = \"FILE.jinja\", or a built-in one", problem_);
  }

  std::string problem_;
  std::string none_;
};

}  // namespace

std::shared_ptr<const ChatWriter> jinja_writer(const ChatSource& source) {
  try {
    return std::make_shared<JinjaWriter>(source);
  } catch (const Error& problem) {
    return std::make_shared<UnreadableWriter>(problem.what());
  }
}

}  // namespace attune::text
