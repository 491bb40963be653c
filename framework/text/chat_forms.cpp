// Forms of conversations that have a name, for models without a template of their own. Sources:
//   chatml      OpenAI's Chat Markup Language, as SmolLM2, Qwen2 and others use it
//   llama2      Touvron et al. 2023 (arXiv:2307.09288), tokenizer_config.json of Llama-2-7b-chat-hf
//   llama3      tokenizer_config.json of Meta-Llama-3-8B-Instruct
//   mistral-v1  tokenizer_config.json of Mistral-7B-Instruct-v0.1 and v0.2; they differ in spaces
//   mistral-v3  tokenizer_config.json of Mistral-7B-Instruct-v0.3
//   gemma       tokenizer_config.json of gemma-3-1b-it
//   alpaca      Taori et al. 2023 (github.com/tatsu-lab/stanford_alpaca), for several turns as
//               LLaMA-Factory and others do it
//   plain       ours, for models without marks of their own
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "attune/error.hpp"
#include "attune/rejected.hpp"
#include "core/names.hpp"
#include "text/chat_writer.hpp"
#include "text/python_text.hpp"

namespace attune::text {
namespace {

/// Around the messages of one role. "{role}" in `open` is the role's name; "{bos}" and "{eos}" are
/// the tokenizer's own.
struct Turn {
  std::string open;  // an answer's is the end of the prompt for it
  std::string lead;  // belongs to the answer, as do content and close
  std::string close;
  std::string after;
};

/// Where the system message goes.
enum class System {
  turn,        // into a turn of its own
  first_user,  // into the first user turn
};

struct Form {
  std::string bos;
  Turn system;
  Turn user;
  Turn assistant;
  // their content loses white space at its ends
  bool trim_user = false;
  bool trim_answer = false;
  System place = System::turn;
  Turn in_user;                // around a system message in a user turn
  std::string default_system;  // where the conversation has none; "": nothing
  bool any_role = false;       // other roles are written as the user's
  bool alternates = false;     // user and assistant take turns, as the models have seen it
  std::string assistant_role = "assistant";
  std::string end_of_turn;
  std::vector<std::string> marks;  // tokens it cannot do without
};

/// Roles stand in the text: system, user and all others alike.
Form with_roles(const std::string& before, const std::string& after_role, const std::string& close,
                const std::string& after) {
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
  form.alternates = true;
  form.marks = {"<bos>", "<start_of_turn>", "<end_of_turn>"};
  return form;
}

Form instructions(Turn user, Turn assistant) {
  Form form;
  form.user = std::move(user);
  form.assistant = std::move(assistant);
  form.place = System::first_user;
  form.alternates = true;
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
  form.default_system =
      "Below is an instruction that describes a task. Write a response that appropriately "
      "completes the request.";
  return form;
}

const std::map<std::string, Form (*)(), std::less<>>& families() {
  static const std::map<std::string, Form (*)(), std::less<>> families = {
      {"alpaca", alpaca},         {"chatml", chatml}, {"gemma", gemma},
      {"llama2", llama2},         {"llama3", llama3}, {"mistral-v1", mistral_v1},
      {"mistral-v3", mistral_v3}, {"plain", plain}};
  return families;
}

// Writing

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  if (const auto at = text.find(from); at != std::string::npos) text.replace(at, from.size(), to);
  return text;
}

/// The tokenizer's own first token of a text; "" when it adds none.
std::string bos_of(const Tokenizer& tokenizer) {
  const auto bare = tokenizer.encode("a", false);
  const auto whole = tokenizer.encode("a");
  return whole.size() > bare.size() && whole.front() != bare.front()
             ? tokenizer.token(whole.front())
             : "";
}

/// tokenizer.json does not say which token ends a text; models use few names.
std::string eos_of(const Tokenizer& tokenizer) {
  static const std::vector<std::string> usual = {"</s>", "<|end_of_text|>", "<|endoftext|>",
                                                 "<eos>", "<|im_end|>"};
  const auto found = std::find_if(usual.begin(), usual.end(),
                                  [&](const auto& name) { return tokenizer.id(name).has_value(); });
  if (found == usual.end())
    fail(
        "the chat template 'alpaca' ends an answer with the tokenizer's end token, but the "
        "tokenizer has none of {}; choose another",
        joined(usual));
  return *found;
}

/// A mark as the tokenizer has it.
std::string resolved(const std::string& text, const Tokenizer& tokenizer) {
  if (text == "{bos}") return bos_of(tokenizer);
  return text == "{eos}" ? eos_of(tokenizer) : text;
}

class Writer {
 public:
  Writer(const std::string& name, const Form& form, const Tokenizer& tokenizer)
      : name_(name), form_(form), tokenizer_(tokenizer) {
    for (const auto& mark : form.marks)
      if (!tokenizer.id(mark))
        fail(
            "the chat template '{}' needs the token '{}', which the tokenizer does not have; "
            "choose another",
            name, mark);
  }

  Script write(const std::vector<Message>& messages) {
    if (messages.empty()) return {};
    auto first = messages.begin();
    std::string system = form_.default_system;
    const bool given = first->role == "system";
    if (given) system = (first++)->content;
    check(first, messages.end(), given);
    script_.text = resolved(form_.bos, tokenizer_);
    if (form_.place == System::turn && (given || !system.empty()))
      put(form_.system, "system", system, form_.trim_user);
    for (auto message = first; message != messages.end(); ++message) {
      const bool holds_system = given && form_.place == System::first_user && message == first;
      put(*message, holds_system ? form_.in_user.open + system + form_.in_user.close : "");
    }
    return std::move(script_);
  }

  Script write_prompt(const std::vector<Message>& messages) {
    auto script = write(messages);
    script.text += opening(form_.assistant, form_.assistant_role);
    return script;
  }

 private:
  using Place = std::vector<Message>::const_iterator;

  template <class... Args>
  [[noreturn]] void reject(fmt::format_string<Args...> text, Args&&... args) const {
    throw Rejected(fmt::format("the chat template '{}' {}", name_,
                               fmt::format(text, std::forward<Args>(args)...)));
  }

  /// What stands after the system message has a place in this form.
  void check(Place first, Place end, bool system) const {
    if (form_.place == System::first_user && system && (first == end || first->role != "user"))
      reject("merges the system message into the first user message, but no user message follows");
    for (auto message = first; message != end; ++message) {
      const bool known = message->role == "user" || message->role == "assistant" || form_.any_role;
      if (!known)
        reject(
            "does not accept a message of the role '{}' here; it takes one system message, then "
            "user and assistant in turn",
            message->role);
      const bool users = (message - first) % 2 == 0;
      if (form_.alternates && (message->role == "user") != users)
        reject("takes user and assistant in turn, the user first");
    }
  }

  /// Names of speakers and calls say nothing that a form leaves out; models' own templates pass
  /// over them, too.
  void check_extra(const Message& message) const {
    if (message.extra.empty()) return;
    const auto extra = nlohmann::json::parse(message.extra, nullptr, false);
    for (const auto& [key, value] : extra.items())
      if (!value.is_null() && key != "name" && key != "tool_call_id")
        reject("does not support the key '{}' of a message", key);
  }

  void put(const Message& message, const std::string& system) {
    check_extra(message);
    if (message.role == "assistant") {
      const std::size_t begin =
          script_.text.size() + opening(form_.assistant, form_.assistant_role).size();
      put(form_.assistant, form_.assistant_role, message.content, form_.trim_answer);
      if (message.train)
        script_.answers.push_back({begin, script_.text.size() - form_.assistant.after.size()});
      return;
    }
    if (form_.in_user.open.empty())
      put(form_.user, message.role, message.content, form_.trim_user, system);
    else  // Llama 2 trims both together
      put(form_.user, message.role, system + message.content, form_.trim_user);
  }

  void put(const Turn& turn, const std::string& role, std::string_view content, bool trim,
           const std::string& system = "") {
    script_.text += opening(turn, role) + turn.lead + system;
    script_.text += trim ? python::stripped(content) : content;
    script_.text += resolved(turn.close, tokenizer_) + turn.after;
  }

  std::string opening(const Turn& turn, const std::string& role) const {
    return replaced(turn.open, "{role}", role);
  }

  const std::string& name_;
  const Form& form_;
  const Tokenizer& tokenizer_;
  Script script_;
};

/// A literal of Jinja, whose escapes are JSON's.
std::string literal(const std::string& text) { return nlohmann::json(text).dump(); }

/// Writes a form as a template, with the marks of one tokenizer.
class JinjaForm {
 public:
  JinjaForm(const Form& form, const Tokenizer& tokenizer) : form_(form), tokenizer_(tokenizer) {}

  std::string text() const {
    return "{%- set given = messages and messages[0]['role'] == 'system' -%}\n"
           "{%- set system = messages[0]['content'] if given else " +
           literal(form_.default_system) +
           " -%}\n"
           "{%- set turns = messages[1:] if given else messages -%}\n" +
           output(literal(resolved(form_.bos, tokenizer_))) + system_turn() +
           "{%- for message in turns -%}\n" + check_order() +
           "{%- if message['role'] == 'assistant' -%}\n" +
           output(turn(form_.assistant, assistant_role(), answer())) + "{%- elif " +
           (form_.any_role ? "true" : "message['role'] == 'user'") + " -%}\n" +
           output(turn(form_.user, "message['role']", question())) + "{%- else -%}\n" +
           refusal("There is no place for a message of this role") +
           "{%- endif -%}\n"
           "{%- endfor -%}\n"
           "{%- if add_generation_prompt -%}\n" +
           output(opening(form_.assistant, assistant_role())) + "{%- endif -%}\n";
  }

 private:
  static std::string output(const std::string& expression) {
    return "{{- " + expression + " -}}\n";
  }
  static std::string refusal(const std::string& reason) {
    return output("raise_exception(" + literal(reason) + ")");
  }
  static std::string trimmed(const std::string& expression, bool trims) {
    return trims ? "(" + expression + ") | trim" : expression;
  }
  std::string assistant_role() const { return literal(form_.assistant_role); }

  static std::string opening(const Turn& turn, const std::string& role) {
    constexpr std::string_view mark = "{role}";
    const auto at = turn.open.find(mark);
    if (at == std::string::npos) return literal(turn.open);
    return literal(turn.open.substr(0, at)) + " ~ " + role + " ~ " +
           literal(turn.open.substr(at + mark.size()));
  }

  std::string turn(const Turn& turn, const std::string& role, const std::string& content) const {
    const auto close = resolved(turn.close, tokenizer_) + turn.after;
    return fmt::format("{} ~ {} ~ ({}) ~ {}", opening(turn, role), literal(turn.lead), content,
                       literal(close));
  }

  std::string system_turn() const {
    if (form_.place != System::turn) return "";
    const auto written =
        output(turn(form_.system, literal("system"), trimmed("system", form_.trim_user)));
    return form_.default_system.empty() ? "{%- if given -%}\n" + written + "{%- endif -%}\n"
                                        : written;
  }

  std::string check_order() const {
    if (!form_.alternates) return "";
    return "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}\n" +
           refusal("User and assistant take turns, the user first") + "{%- endif -%}\n";
  }

  std::string answer() const { return trimmed("message['content']", form_.trim_answer); }

  std::string question() const {
    const std::string content = "message['content']";
    if (form_.place != System::first_user) return trimmed(content, form_.trim_user);
    const auto system = fmt::format("({} ~ system ~ {} if given and loop.first else '')",
                                    literal(form_.in_user.open), literal(form_.in_user.close));
    // Llama 2 trims both together
    if (!form_.in_user.open.empty()) return trimmed(system + " ~ " + content, form_.trim_user);
    return system + " ~ (" + trimmed(content, form_.trim_user) + ")";
  }

  const Form& form_;
  const Tokenizer& tokenizer_;
};

class FormWriter final : public ChatWriter {
 public:
  FormWriter(std::string name, Form form) : name_(std::move(name)), form_(std::move(form)) {}

  Script write(const std::vector<Message>& messages, const Tokenizer& tokenizer,
               std::string_view tools) const override {
    check(tools);
    return Writer(name_, form_, tokenizer).write(messages);
  }
  std::string prompt(const std::vector<Message>& messages, const Tokenizer& tokenizer,
                     std::string_view tools) const override {
    check(tools);
    return Writer(name_, form_, tokenizer).write_prompt(messages).text;
  }
  const std::string& end_of_turn() const override { return form_.end_of_turn; }

 private:
  void check(std::string_view tools) const {
    if (!tools.empty() && tools != "[]" && tools != "null")
      throw Rejected(fmt::format("the chat template '{}' does not support tools", name_));
  }

  std::string name_;
  Form form_;
};

}  // namespace

std::vector<std::string> writer_names() {
  std::vector<std::string> names;
  for (const auto& [name, form] : families()) names.push_back(name);
  return names;
}

std::string form_as_jinja(std::string_view name, const Tokenizer& tokenizer) {
  const auto found = families().find(name);
  ATTUNE_ASSERT(found != families().end(), "there is no built-in chat template '{}'", name);
  const auto form = found->second();
  return JinjaForm(form, tokenizer).text();
}

std::shared_ptr<const ChatWriter> named_writer(std::string_view name) {
  const auto found = families().find(name);
  return found == families().end() ? nullptr
                                   : std::make_shared<FormWriter>(found->first, found->second());
}

}  // namespace attune::text
