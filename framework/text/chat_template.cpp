// A chat template is a form: what stands around the messages of each role. Sources of the forms:
//   chatml      OpenAI's Chat Markup Language, as SmolLM2, Qwen2 and others use it
//   llama2      Touvron et al. 2023 (arXiv:2307.09288), tokenizer_config.json of Llama-2-7b-chat-hf
//   llama3      tokenizer_config.json of Meta-Llama-3-8B-Instruct; Llama-3.1 puts two dates before the system message
//   mistral-v1  tokenizer_config.json of Mistral-7B-Instruct-v0.1 and v0.2, which differ in spaces alone
//   mistral-v3  tokenizer_config.json of Mistral-7B-Instruct-v0.3
//   gemma       tokenizer_config.json of gemma-2b-it and gemma-3-1b-it; the first has no system message
//   alpaca      Taori et al. 2023 (github.com/tatsu-lab/stanford_alpaca), for several turns as LLaMA-Factory and others do it
//   plain       ours, for models without marks of their own
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "attune/dataset.hpp"
#include "attune/tokenizer.hpp"
#include "core/names.hpp"
#include "text/unicode.hpp"

namespace attune {
namespace {

/// Around the messages of one role. "{role}" in `open` is the role's name; "{bos}" and "{eos}" are the tokenizer's own.
struct Turn {
  std::string open;   // an answer's is the end of the prompt for it
  std::string lead;   // belongs to the answer, as do content and close
  std::string close;
  std::string after;
};

/// Where the system message goes.
enum class System {
  turn,        // into a turn of its own
  first_user,  // into the first user turn
  last_user,   // into the last message, when a user wrote that
  nowhere,
};

}  // namespace

struct ChatTemplate::Form {
  std::string bos;
  Turn system, user, assistant;
  bool trim_user = false, trim_answer = false;  // their content loses white space at its ends
  System place = System::turn;
  Turn in_user;                 // around a system message in a user turn
  std::string default_system;   // where the conversation has none; "": nothing
  bool always_system = false;   // the turn stands even when there is nothing to say
  bool any_role = false;        // other roles are written as the user's
  std::string assistant_role = "assistant";
  std::string end_of_turn;
  std::vector<std::string> marks;  // tokens it cannot do without
};

namespace {

using Form = ChatTemplate::Form;

/// Roles stand in the text: system, user and all others alike.
Form with_roles(const std::string& before, const std::string& after_role, const std::string& close, const std::string& after) {
  Form form;
  form.system = form.user = form.assistant = {before + "{role}" + after_role, "", close, after};
  form.any_role = true;
  form.end_of_turn = close;
  return form;
}

Form chatml() { return with_roles("<|im_start|>", "\n", "<|im_end|>", "\n"); }

Form plain() { return with_roles("### ", "\n", "\n### end", "\n"); }

Form llama3() {
  auto form = with_roles("<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>", "");
  form.bos = "<|begin_of_text|>";
  form.trim_user = form.trim_answer = true;
  form.marks = {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"};
  return form;
}

Form gemma() {
  auto form = with_roles("<start_of_turn>", "\n", "<end_of_turn>", "\n");
  form.bos = "<bos>";
  form.assistant_role = "model";
  form.trim_user = form.trim_answer = true;
  form.place = System::first_user;
  form.in_user = {"", "", "\n\n", ""};
  form.any_role = false;
  form.marks = {"<bos>", "<start_of_turn>", "<end_of_turn>"};
  return form;
}

Form instructions(Turn user, Turn assistant) {
  Form form;
  form.user = std::move(user);
  form.assistant = std::move(assistant);
  form.place = System::first_user;
  form.end_of_turn = "</s>";
  form.marks = {"<s>", "</s>"};
  return form;
}

Form llama2() {
  auto form = instructions({"<s>[INST] ", "", " [/INST]", ""}, {"", " ", " </s>", ""});
  form.trim_user = form.trim_answer = true;
  form.in_user = {"<<SYS>>\n", "", "\n<</SYS>>\n\n", ""};
  return form;
}

Form mistral(const std::string& open, const std::string& close, Turn assistant) {
  auto form = instructions({open, "", close, ""}, std::move(assistant));
  form.bos = "<s>";
  form.in_user = {"", "", "\n\n", ""};
  return form;
}

Form mistral_v1() { return mistral("[INST] ", " [/INST]", {"", "", "</s>", ""}); }

Form mistral_v3() {
  auto form = mistral("[INST] ", "[/INST]", {"", " ", "</s>", ""});
  form.trim_answer = true;
  return form;
}

Form alpaca() {
  Form form;
  form.bos = "{bos}";
  form.system = {"", "", "\n\n", ""};
  form.user = {"### Instruction:\n", "", "\n\n", ""};
  form.assistant = {"### Response:\n", "", "{eos}", "\n\n"};
  form.trim_user = form.trim_answer = true;
  form.default_system = "Below is an instruction that describes a task. Write a response that appropriately completes the request.";
  return form;
}

const std::map<std::string, Form (*)(), std::less<>>& families() {
  static const std::map<std::string, Form (*)(), std::less<>> families = {
      {"alpaca", alpaca}, {"chatml", chatml},         {"gemma", gemma},           {"llama2", llama2},
      {"llama3", llama3}, {"mistral-v1", mistral_v1}, {"mistral-v3", mistral_v3}, {"plain", plain}};
  return families;
}

// Recognition

/// The template text without white space outside of its literals, which all stand in single quotes, with "\n" for a line end.
std::string squeezed(std::string_view jinja) {
  std::string result;
  char quote = 0;
  for (std::size_t i = 0; i < jinja.size(); ++i) {
    const char c = jinja[i];
    if (quote && c == '\\' && i + 1 < jinja.size()) {
      result.append({c, jinja[++i]});
    } else if (c == quote || (!quote && (c == '\'' || c == '"'))) {
      quote = quote ? 0 : c;
      result += '\'';
    } else if (quote && c == '\n') {
      result += "\\n";
    } else if (quote || std::string_view(" \t\r\n").find(c) == std::string_view::npos) {
      result += c;
    }
  }
  return result;
}

/// A squeezed template text, asked for what stands in it.
class Jinja {
 public:
  explicit Jinja(std::string_view text) : text_(squeezed(text)) {}

  bool has(std::string_view part) const { return text_.find(part) != std::string::npos; }

  /// The first of the candidates whose part stands in the text; null: none does.
  template <std::size_t n>
  const Turn* first(const std::array<std::pair<std::string, Turn>, n>& candidates) const {
    const auto found = std::find_if(candidates.begin(), candidates.end(), [&](const auto& candidate) { return has(candidate.first); });
    return found == candidates.end() ? nullptr : &found->second;
  }

  /// The literal that begins with these words; "": none does.
  std::string literal(std::string_view beginning) const {
    const auto at = text_.find("'" + std::string(beginning));
    return at == std::string::npos ? "" : text_.substr(at + 1, text_.find('\'', at + 1) - at - 1);
  }

 private:
  std::string text_;
};

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

/// Nothing: this family does not write so. What rewrites the messages, or opens with other tokens, is not plain ChatML although it uses its marks.
std::optional<Form> find_chatml(const Jinja& jinja, std::string_view text) {
  if (!jinja.has("<|im_start|>") || !jinja.has("<|im_end|>") || jinja.has("<think>") || jinja.has("bos_token") || jinja.has("trim")) return std::nullopt;
  auto form = chatml();
  form.default_system = literal_system_message(text, "<|im_start|>system", "<|im_end|>");
  return form;
}

std::optional<Form> find_llama3(const Jinja& jinja, std::string_view) {
  if (!jinja.has(R"('<|start_header_id|>'+message['role']+'<|end_header_id|>\n\n'+message['content']|trim+'<|eot_id|>')")) return std::nullopt;
  auto form = llama3();
  if (!jinja.has("Cutting Knowledge Date: December 2023")) return form;
  // Llama 3.2 would take today's date; we take the one that it falls back on, so that a data set does not depend on the day it is made.
  const auto date = jinja.literal("26 J");
  if (date.empty()) return std::nullopt;
  form.always_system = true;
  form.system.lead = "Cutting Knowledge Date: December 2023\nToday Date: " + date + "\n\n";
  return form;
}

std::optional<Form> find_gemma(const Jinja& jinja, std::string_view) {
  auto form = gemma();
  if (jinja.has(R"('<start_of_turn>'+role+'\n'+message['content']|trim+'<end_of_turn>\n')")) {
    form.place = System::nowhere;
    return form;
  }
  if (jinja.has(R"('<start_of_turn>'+role+'\n'+(first_user_prefixifloop.first)") && jinja.has("message['content']|trim")) return form;
  return std::nullopt;
}

std::optional<Form> find_llama2(const Jinja& jinja, std::string_view) {
  const bool system = jinja.has(R"('<<SYS>>\n'+system_message+'\n<</SYS>>\n\n'+)");
  const bool user = jinja.has("bos_token+'[INST] '+content.strip()+' [/INST]'") || jinja.has("bos_token+'[INST] '+content|trim+' [/INST]'");
  const bool answer = jinja.has("' '+content.strip()+' '+eos_token") || jinja.has("' '+content|trim+' '+eos_token");
  return system && user && answer ? std::optional(llama2()) : std::nullopt;
}

std::optional<Form> find_mistral(const Jinja& jinja, std::string_view) {
  static const auto user = [](const std::string& open, const std::string& close) {
    return std::pair(fmt::format("'{}'+message['content']+'{}'", open, close), Turn{open, "", close, ""});
  };
  static const std::array users = {user(" [INST] ", " [/INST]"), user("[INST] ", " [/INST]"), user("[INST] ", "[/INST]")};
  static const std::array<std::pair<std::string, Turn>, 4> answers = {{
      {"' '+message['content']|trim+eos_token", {"", " ", "</s>", ""}},
      {"' '+message['content']+eos_token", {"", " ", "</s>", ""}},
      {"message['content']+eos_token+' '", {"", "", "</s>", " "}},
      {"message['content']+eos_token", {"", "", "</s>", ""}},
  }};
  const auto* user_turn = jinja.first(users);
  const auto* answer = jinja.first(answers);
  const bool opens_once = jinja.has("{bos_token}") || jinja.has("{-bos_token}");
  if (!user_turn || !answer || !opens_once || jinja.has("[SYSTEM_PROMPT]")) return std::nullopt;
  auto form = mistral(user_turn->open, user_turn->close, *answer);
  form.trim_answer = jinja.has(answers[0].first);
  if (!jinja.has(R"(system_message+'\n\n'+message['content'])"))
    form.place = System::nowhere;
  else if (jinja.has("loop.lastandsystem_messageisdefined"))
    form.place = System::last_user;
  return form;
}

std::optional<Form> find_alpaca(const Jinja& jinja, std::string_view) {
  if (!jinja.has(R"('### Instruction:\n'+message['content'].strip()+'\n\n')") ||
      !jinja.has(R"('### Response:\n'+message['content'].strip()+eos_token+'\n\n')"))
    return std::nullopt;
  auto form = alpaca();
  form.default_system = "";
  return form;
}

// Writing

/// What Python's str.strip takes away; it also counts the four separators of ASCII as white space.
std::string_view stripped(std::string_view text) {
  const auto is_space = [](char32_t c) { return text::is_whitespace(c) || (c >= 0x1C && c <= 0x1F); };
  while (!text.empty()) {
    std::size_t end = 0;
    if (!is_space(text::next_code_point(text, end))) break;
    text.remove_prefix(end);
  }
  while (!text.empty()) {
    std::size_t begin = text.size();
    if (!is_space(text::previous_code_point(text, begin))) break;
    text = text.substr(0, begin);
  }
  return text;
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  if (const auto at = text.find(from); at != std::string::npos) text.replace(at, from.size(), to);
  return text;
}

/// The tokenizer's own first token of a text; "" when it adds none.
std::string bos_of(const Tokenizer& tokenizer) {
  const auto bare = tokenizer.encode("a", false), whole = tokenizer.encode("a");
  return whole.size() > bare.size() && whole.front() != bare.front() ? tokenizer.token(whole.front()) : "";
}

/// tokenizer.json does not say which token ends a text; models use few names.
std::string eos_of(const Tokenizer& tokenizer) {
  static const std::vector<std::string> usual = {"</s>", "<|end_of_text|>", "<|endoftext|>", "<eos>", "<|im_end|>"};
  const auto found = std::find_if(usual.begin(), usual.end(), [&](const auto& name) { return tokenizer.id(name).has_value(); });
  if (found == usual.end()) fail("the chat template 'alpaca' ends an answer with the tokenizer's end mark, and it has none of {}; choose another", joined(usual));
  return *found;
}

/// A conversation as text, with the stretches that the assistant wrote.
struct Script {
  std::string text;
  std::vector<Span> answers;
};

class Writer {
 public:
  Writer(const std::string& name, const Form& form, const Tokenizer& tokenizer) : name_(name), form_(form), tokenizer_(tokenizer) {
    for (const auto& mark : form.marks)
      if (!tokenizer.id(mark)) fail("the chat template '{}' needs the token '{}', which the tokenizer does not have; choose another", name, mark);
  }

  Script write(const std::vector<Message>& messages) {
    if (messages.empty()) return {};
    auto first = messages.begin();
    std::string system = form_.default_system;
    const bool given = first->role == "system";
    if (given) system = (first++)->content;
    if (given && form_.place == System::nowhere)
      throw Rejected(fmt::format("the chat template '{}' of this model has no place for a system message; leave it out, or put it into "
                                 "the user's first", name_));
    script_.text = resolved(form_.bos);
    if (form_.place == System::turn && (given || form_.always_system || !system.empty())) put(form_.system, "system", system, form_.trim_user);
    for (auto message = first; message != messages.end(); ++message) {
      const bool holds_system = given && ((form_.place == System::first_user && message == first) ||
                                          (form_.place == System::last_user && message + 1 == messages.end()));
      put(*message, holds_system && message->role == "user" ? form_.in_user.open + system + form_.in_user.close : "");
    }
    return std::move(script_);
  }

  Script write_prompt(const std::vector<Message>& messages) {
    auto script = write(messages);
    script.text += opening(form_.assistant, form_.assistant_role);
    return script;
  }

 private:
  /// A form writes role and content alone.
  void check(const Message& message) const {
    if (message.extra.empty()) return;
    const auto extra = nlohmann::json::parse(message.extra);
    for (const auto* key : {"tool_calls", "reasoning_content", "reasoning", "thinking", "tool_plan", "tools", "functions"})
      if (extra.contains(key)) throw Rejected(fmt::format("the chat template '{}' has no place for {}", name_, key));
  }

  void put(const Message& message, const std::string& system) {
    check(message);
    if (message.role == "assistant") {
      const std::size_t begin = script_.text.size() + opening(form_.assistant, form_.assistant_role).size();
      put(form_.assistant, form_.assistant_role, message.content, form_.trim_answer);
      if (message.train) script_.answers.push_back({begin, script_.text.size() - form_.assistant.after.size()});
      return;
    }
    if (message.role != "user" && !form_.any_role)
      throw Rejected(fmt::format("the chat template '{}' has no place for a message of the role '{}' here; it takes one system message, "
                                 "then user and assistant in turn", name_, message.role));
    if (form_.in_user.open.empty())
      put(form_.user, message.role, message.content, form_.trim_user, system);
    else  // Llama 2 trims both together
      put(form_.user, message.role, system + message.content, form_.trim_user);
  }

  void put(const Turn& turn, const std::string& role, std::string_view content, bool trim, const std::string& system = "") {
    script_.text += opening(turn, role) + turn.lead + system;
    script_.text += trim ? stripped(content) : content;
    script_.text += resolved(turn.close) + turn.after;
  }

  std::string opening(const Turn& turn, const std::string& role) const { return replaced(turn.open, "{role}", role); }

  std::string resolved(const std::string& text) const {
    if (text == "{bos}") return bos_of(tokenizer_);
    return text == "{eos}" ? eos_of(tokenizer_) : text;
  }

  const std::string& name_;
  const Form& form_;
  const Tokenizer& tokenizer_;
  Script script_;
};

}  // namespace

ChatTemplate::ChatTemplate(std::string name, Form form) : name_(std::move(name)), form_(std::make_shared<const Form>(std::move(form))) {}

std::vector<std::string> ChatTemplate::names() {
  std::vector<std::string> names;
  for (const auto& [name, form] : families()) names.push_back(name);
  return names;
}

ChatTemplate ChatTemplate::by_name(std::string_view name) {
  const auto found = families().find(name);
  if (found == families().end()) fail("there is no chat template '{}'{}; there are {}", name, did_you_mean(name, names()), joined(names()));
  return {found->first, found->second()};
}

ChatTemplate ChatTemplate::recognise(std::string_view text) {
  const Jinja jinja(text);
  using Find = std::optional<Form> (*)(const Jinja&, std::string_view);
  static const std::pair<const char*, Find> finds[] = {{"chatml", find_chatml}, {"llama3", find_llama3},   {"gemma", find_gemma},
                                                       {"llama2", find_llama2}, {"mistral", find_mistral}, {"alpaca", find_alpaca}};
  for (const auto& [name, find] : finds) {
    auto form = find(jinja, text);
    if (!form) continue;
    const bool mistral = name == std::string_view("mistral");
    return {mistral ? form->user.close == "[/INST]" ? "mistral-v3" : "mistral-v1" : name, std::move(*form)};
  }
  fail("the model's own chat template is not one that is known; name the one to use in the recipe by template = \"...\": {}", joined(names()));
}

const std::string& ChatTemplate::end_of_turn() const { return form_->end_of_turn; }

Conversation ChatTemplate::encode(const std::vector<Message>& messages, const Tokenizer& tokenizer, std::string_view tools) const {
  if (!tools.empty()) throw Rejected(fmt::format("the chat template '{}' has no place for tools", name_));
  const auto script = Writer(name_, *form_, tokenizer).write(messages);
  auto encoding = tokenizer.encode_with_spans(script.text, false);
  Conversation conversation{std::move(encoding.ids), std::vector<std::uint8_t>(encoding.spans.size(), 0)};
  auto answer = script.answers.begin();
  for (std::size_t i = 0; i < encoding.spans.size(); ++i) {
    const auto [begin, end] = encoding.spans[i];
    while (answer != script.answers.end() && answer->end <= begin) ++answer;
    if (answer != script.answers.end() && end > answer->begin) conversation.answer[i] = 1;
  }
  return conversation;
}

std::vector<std::int32_t> ChatTemplate::prompt(const std::vector<Message>& messages, const Tokenizer& tokenizer, std::string_view) const {
  return tokenizer.encode(Writer(name_, *form_, tokenizer).write_prompt(messages).text, false);
}

}  // namespace attune
