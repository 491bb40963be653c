#include <fmt/format.h>

#include "attune/error.hpp"
#include "attune/tokenizer.hpp"
#include "core/names.hpp"
#include "text/chat_writer.hpp"

namespace attune {

ChatTemplate::ChatTemplate(std::string name, std::shared_ptr<const text::ChatWriter> writer)
    : name_(std::move(name)), writer_(std::move(writer)) {}

std::vector<std::string> ChatTemplate::names() { return text::writer_names(); }

ChatTemplate ChatTemplate::by_name(std::string_view name) {
  auto writer = text::named_writer(name);
  if (!writer)
    fail("there is no chat template '{}'{}; choose one of {}, or a file ending in .jinja", name,
         did_you_mean(name, names()), joined(names()));
  return {std::string(name), std::move(writer)};
}

ChatTemplate ChatTemplate::from_jinja(const ChatSource& source) {
  return {"jinja", text::jinja_writer(source)};
}

const std::string& ChatTemplate::end_of_turn() const { return writer_->end_of_turn(); }

Conversation ChatTemplate::encode(const std::vector<Message>& messages, const Tokenizer& tokenizer,
                                  std::string_view tools) const {
  const auto script = writer_->write(messages, tokenizer, tools);
  auto encoding = tokenizer.encode_with_spans(script.text, false);
  Conversation conversation{std::move(encoding.ids),
                            std::vector<std::uint8_t>(encoding.spans.size(), 0)};
  auto answer = script.answers.begin();
  for (std::size_t i = 0; i < encoding.spans.size(); ++i) {
    const auto [begin, end] = encoding.spans[i];
    while (answer != script.answers.end() && answer->end <= begin) ++answer;
    if (answer != script.answers.end() && end > answer->begin) conversation.answer[i] = 1;
  }
  return conversation;
}

std::vector<std::int32_t> ChatTemplate::prompt(const std::vector<Message>& messages,
                                               const Tokenizer& tokenizer,
                                               std::string_view tools) const {
  return tokenizer.encode(writer_->prompt(messages, tokenizer, tools), false);
}

}  // namespace attune
