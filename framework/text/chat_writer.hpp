// Implementation of ChatTemplate: renders a conversation as text and marks the answers. There are
// writers for the named formats and for models' Jinja templates.
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
  std::vector<Span> answers;  // of messages with train = true, in order
};

class ChatWriter {
 public:
  virtual ~ChatWriter() = default;
  /// Throws Rejected if the format cannot represent the conversation.
  virtual Script write(const std::vector<Message>& messages, const Tokenizer& tokenizer,
                       std::string_view tools) const = 0;
  virtual std::string prompt(const std::vector<Message>& messages, const Tokenizer& tokenizer,
                             std::string_view tools) const = 0;
  /// Text that ends an answer; "" if there is none.
  virtual const std::string& end_of_turn() const = 0;
};

/// The writer of a named format; null if the name is unknown.
std::shared_ptr<const ChatWriter> named_writer(std::string_view name);
std::vector<std::string> writer_names();
/// A named format as a Jinja template with the same output, for programs that only read templates.
/// `name` is one of writer_names().
std::string form_as_jinja(std::string_view name, const Tokenizer& tokenizer);

std::shared_ptr<const ChatWriter> jinja_writer(const ChatSource& source);

}  // namespace attune::text
