// A pair of answers. Its context is what chosen and rejected begin with, whatever `prompt` or
// `messages` repeat of it.
#include <algorithm>
#include <span>

#include "prepare/conversation.hpp"

namespace attune {
namespace {

constexpr const char* different_contexts = "chosen and rejected have different contexts";

using Messages = std::vector<Message>;

bool equal(const Message& a, const Message& b) {
  return a.role == b.role && a.content == b.content && a.extra == b.extra;
}

bool begins_with(std::span<const Message> all, std::span<const Message> beginning) {
  return beginning.size() <= all.size() &&
         std::equal(beginning.begin(), beginning.end(), all.begin(), equal);
}

bool ends_with(std::span<const Message> all, std::span<const Message> end) {
  return end.size() <= all.size() &&
         std::equal(end.begin(), end.end(), all.end() - std::ssize(end), equal);
}

std::span<const Message> without_system(std::span<const Message> messages) {
  return !messages.empty() && messages.front().role == "system" ? messages.subspan(1) : messages;
}

/// One of them may leave out the system message of the other.
bool repeats_beginning(std::span<const Message> all, std::span<const Message> beginning) {
  if (begins_with(all, beginning)) return true;
  const bool both = all.front().role == "system" && beginning.front().role == "system";
  return !both && begins_with(without_system(all), without_system(beginning));
}

bool is_text(const Messages& answer) {
  return answer.size() == 1 && answer.front().role == "assistant" && answer.front().extra.empty() &&
         answer.front().train;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\n";
  const auto first = text.find_first_not_of(blanks);
  return first == std::string_view::npos
             ? ""
             : text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

}  // namespace

struct ConversationReader::Answers {
  Messages chosen;
  Messages rejected;
  std::size_t shared;  // messages that both begin with
  bool whole;          // they begin with the conversation, not with an answer

  bool repeat(std::span<const Message> context) const {
    return repeats_beginning(chosen, context) || repeats_beginning(rejected, context);
  }
};

ConversationReader::Answers ConversationReader::answers() const {
  Answers pair{messages("chosen", "assistant"), messages("rejected", "assistant"), 0, false};
  auto& [chosen, rejected, shared, whole] = pair;
  whole = chosen.front().role != "assistant";
  if (whole != (rejected.front().role != "assistant"))
    bad_row(row_, different_contexts,
            "chosen and rejected have different forms: one begins with the conversation, the other "
            "with an answer; use the same form for both");
  const auto parting =
      std::mismatch(chosen.begin(), chosen.end(), rejected.begin(), rejected.end(), equal);
  shared = static_cast<std::size_t>(parting.first - chosen.begin());
  if (whole && shared == 0)
    bad_row(row_, different_contexts,
            "chosen and rejected begin with different messages, so they do not answer one prompt; "
            "correct or remove "
            "the pair");
  const auto shorter = std::min(chosen.size(), rejected.size());
  // the same: the plugin rejects it
  if (chosen.size() == rejected.size() && shared == shorter) --shared;
  if (shared == shorter)
    bad_row(row_, "an answer is missing",
            "one of chosen and rejected is a prefix of the other, so one answer is missing");
  for (const auto* answer : {&chosen, &rejected})
    if (const auto& role = (*answer)[shared].role; role != "assistant")
      bad_row(row_, different_contexts,
              "chosen and rejected first differ at a message of the role '{}', so their answers "
              "have different contexts; correct or remove the pair",
              role);
  return pair;
}

bool ConversationReader::has_conversation() const {
  return given(object_, "messages") || given(object_, "conversations") ||
         given(object_, "conversation");
}

/// `prompt` as a text stands in the conversation as a message of the user.
void ConversationReader::check_prompt(const Messages& context) const {
  const auto* prompt = given(object_, "prompt");
  if (!prompt || !is_plain(*prompt)) return;
  const auto text = text_of(row_, object_, "prompt");
  const auto is_prompt = [&](const Message& message) {
    return message.role == "user" && trimmed(message.content) == trimmed(text);
  };
  if (std::ranges::none_of(context, is_prompt))
    bad_row(row_, different_contexts,
            "the prompt is not among the user's messages in the conversation; correct or remove "
            "one of them");
}

/// What `prompt` and `messages` say, for answers that do not hold it.
Messages ConversationReader::given_context(const Answers& pair) const {
  const auto* prompt = given(object_, "prompt");
  auto context = has_conversation() ? conversation() : messages("prompt", "user");
  for (const auto* answer : {&pair.chosen, &pair.rejected})
    if (ends_with(context, *answer)) {
      context.resize(context.size() - answer->size());
      break;
    }
  if (context.empty() || context.back().role == "assistant")
    bad_row(row_, different_contexts,
            "the conversation ends with an answer that is neither chosen nor rejected; correct or "
            "remove the pair");
  if (!has_conversation()) {
    add_system(context);
    return context;
  }
  if (prompt && !is_plain(*prompt) && !repeats_beginning(context, messages("prompt", "user")))
    bad_row(row_, different_contexts,
            "the prompt is not the beginning of the conversation; correct or remove one of them");
  check_prompt(context);
  return context;
}

/// All that both answers follow.
Messages ConversationReader::context(const Answers& pair) const {
  if (!pair.whole) {
    auto context = given_context(pair);
    context.insert(context.end(), pair.chosen.begin(),
                   pair.chosen.begin() + static_cast<std::ptrdiff_t>(pair.shared));
    return context;
  }
  Messages context(pair.chosen.begin(),
                   pair.chosen.begin() + static_cast<std::ptrdiff_t>(pair.shared));
  if (const auto* prompt = given(object_, "prompt"); prompt && !is_plain(*prompt)) {
    // Messages that the answers repeat, or that come before them.
    const auto before = messages("prompt", "user");
    const auto turns = without_system(before);
    const auto own = without_system(context);
    const bool other_turns = turns.empty() || own.empty() || !equal(turns.front(), own.front());
    const bool comes_before =
        other_turns && (before.back().role == "assistant" || before.back().role == "system");
    if (!pair.repeat(before) && !comes_before)
      bad_row(
          row_, different_contexts,
          "the prompt is not the beginning of chosen and rejected; correct or remove one of them");
    if (!pair.repeat(before)) context.insert(context.begin(), before.begin(), before.end());
  }
  if (has_conversation())
    if (const auto told = conversation(); !pair.repeat(told))
      bad_row(row_, different_contexts,
              "the conversation is neither the beginning of chosen nor of rejected; correct or "
              "remove one of them");
  add_system(context);
  check_prompt(context);
  return context;
}

void ConversationReader::set_preference(Record& record) const {
  const auto pair = answers();
  auto context = this->context(pair);
  const auto answer = [&](const Messages& all) {
    return Messages(all.begin() + static_cast<std::ptrdiff_t>(pair.shared), all.end());
  };
  auto chosen = answer(pair.chosen);
  auto rejected = answer(pair.rejected);
  const bool texts = is_text(chosen) && is_text(rejected);
  const auto* prompt = given(object_, "prompt");
  if (texts && !pair.whole && pair.shared == 0 && !has_conversation() && is_plain(*prompt)) {
    record.fields["prompt"] = text_of(row_, object_, "prompt");
    if (auto system = optional_text(row_, object_, "system"); !system.empty())
      record.fields["system"] = std::move(system);
  } else {
    record.messages = std::move(context);
  }
  if (texts) {
    record.fields["chosen"] = chosen.front().content;
    record.fields["rejected"] = rejected.front().content;
  } else {
    record.answers = {{"chosen", std::move(chosen)}, {"rejected", std::move(rejected)}};
  }
}

}  // namespace attune
