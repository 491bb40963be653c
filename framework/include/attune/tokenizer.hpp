// Text to token ids and back, and chat templates.
#pragma once
#include <attune/api.hpp>
#include <attune/chat_source.hpp>
#include <nlohmann/json_fwd.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

/// A stretch of a text, in bytes.
struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool operator==(const Span&) const = default;
};

/// Tokens and the stretch of the text that each stands for; {0, 0} for those that the text does not
/// hold ([CLS]).
struct Encoding {
  std::vector<std::int32_t> ids;
  std::vector<Span> spans;
};

/// Built from Hugging Face's tokenizer.json (GGUF vocabularies and vocab.txt are first turned into
/// one). Immutable: threads may share it.
class Tokenizer {
 public:
  /// Error when a part is of a type that is not supported; it names the part.
  explicit Tokenizer(const nlohmann::json& tokenizer_json);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  /// Added tokens ("<|im_start|>") in the text are recognised. special: also what the
  /// post-processor adds ([CLS] ... [SEP]). Invalid UTF-8 is read as U+FFFD; invalid_utf8() counts
  /// it.
  std::vector<std::int32_t> encode(std::string_view text, bool special = true) const;
  /// The same ids, with their bytes in `text`: what `tokenizers` gives as Encoding.offsets, which
  /// counts characters instead of bytes. Spans may overlap (several tokens of one character each
  /// span all of it) and leave out what the normalizer dropped. About half as fast.
  Encoding encode_with_spans(std::string_view text, bool special = true) const;
  /// Invalid UTF-8 in the result is kept as it is (a token can end inside a character).
  std::string decode(const std::vector<std::int32_t>& ids, bool skip_special = true) const;

  std::int64_t size() const;  // ids run from 0 to size()-1, added tokens included
  std::optional<std::int32_t> id(std::string_view token) const;
  std::string token(std::int32_t id) const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

/// How many ill-formed sequences a text holds; each of them is encoded as one U+FFFD.
std::size_t invalid_utf8(std::string_view text);

/// One message of a conversation.
struct Message {
  std::string role;     // as the chat template knows it: "system", "user", "assistant", "tool", ...
  std::string content;  // its text; "" when it has none
  /// A JSON object of the message's other keys that a chat template may read: "tool_calls",
  /// "tool_call_id", "name", "reasoning_content". It replaces role and content where it names them
  /// ("content": null). "": there are none.
  std::string extra = {};
  bool train = true;  // whether an assistant message's tokens are targets
};

/// Tokens of one conversation, and which of them are an answer.
struct Conversation {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> answer;  // 1: written by the assistant, the closing mark included
};

namespace text {
class ChatWriter;
}

/// How a model family writes a conversation as text.
class ChatTemplate {
 public:
  /// One of names(). Unknown: Error that lists them.
  static ChatTemplate by_name(std::string_view name);
  /// A model's own, rendered as transformers' apply_chat_template does. What is no Jinja, or uses
  /// what is not supported, is an Error once it is used.
  static ChatTemplate from_jinja(const ChatSource& source);
  static std::vector<std::string> names();

  /// An answer begins where the prompt for it ends; a token across the border belongs to it.
  /// Messages that are not trained on are none. Rejected (attune/rejected.hpp) when the template
  /// refuses the conversation, or has no place for a part of it; Error when the tokenizer lacks a
  /// mark that a form needs. `tools`: a JSON list of the functions that the model may call; "":
  /// none.
  Conversation encode(const std::vector<Message>& messages, const Tokenizer& tokenizer,
                      std::string_view tools = {}) const;
  /// The conversation and the opening of the assistant's next answer.
  std::vector<std::int32_t> prompt(const std::vector<Message>& messages, const Tokenizer& tokenizer,
                                   std::string_view tools = {}) const;
  /// "jinja" for a model's own.
  const std::string& name() const { return name_; }
  /// The text that ends an answer ("<|im_end|>"); generation stops there. "": the template has
  /// none.
  const std::string& end_of_turn() const;

 private:
  ChatTemplate(std::string name, std::shared_ptr<const text::ChatWriter> writer);
  std::string name_;
  std::shared_ptr<const text::ChatWriter> writer_;
};

}  // namespace attune
ATTUNE_API_END
