// A conversation as text, with the stretches that are answers. Behind ChatTemplate: the forms that
// have a name, and models' own templates.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "attune/tokenizer.hpp"

namespace attune::text {

struct Script {
  std::string text;
  std::vector<Span> answers;  // of messages that are trained on, in order
};

class ChatWriter {
 public:
  virtual ~ChatWriter() = default;
  /// Rejected when the conversation has no such form.
  virtual Script write(const std::vector<Message>& messages, const Tokenizer& tokenizer,
                       std::string_view tools) const = 0;
  virtual std::string prompt(const std::vector<Message>& messages, const Tokenizer& tokenizer,
                             std::string_view tools) const = 0;
  /// What ends an answer; "" when nothing does.
  virtual const std::string& end_of_turn() const = 0;
};

/// A form by its name; null: there is none.
std::shared_ptr<const ChatWriter> named_writer(std::string_view name);
std::vector<std::string> writer_names();
/// The form of that name in Jinja, for programs that read templates alone: it renders what the form
/// writes. `name` is one of writer_names().
std::string form_as_jinja(std::string_view name, const Tokenizer& tokenizer);

std::shared_ptr<const ChatWriter> jinja_writer(const ChatSource& source);

}  // namespace attune::text
