// Tokenization and chat templates.
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

/// A range of bytes in a text.
struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool operator==(const Span&) const = default;
};

/// Token ids with the range of text that each represents; {0, 0} for tokens that are not in the
/// text ([CLS]).
struct Encoding {
  std::vector<std::int32_t> ids;
  std::vector<Span> spans;
};

/// A tokenizer built from Hugging Face's tokenizer.json (GGUF vocabularies and vocab.txt are
/// converted to it first). Immutable and safe to share between threads.
class Tokenizer {
 public:
  /// Error if a component has an unsupported type; it names the component.
  explicit Tokenizer(const nlohmann::json& tokenizer_json);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  /// Encodes text. Added tokens ("<|im_start|>") in the text are recognised. special: also add the
  /// post-processor's tokens ([CLS] ... [SEP]). Invalid UTF-8 is read as U+FFFD; invalid_utf8()
  /// counts it.
  std::vector<std::int32_t> encode(std::string_view text, bool special = true) const;
  /// The same ids with their byte ranges in `text`. Hugging Face's Encoding.offsets has the same
  /// ranges, in characters. Spans may overlap: several tokens of one character each cover all of
  /// it. Spans omit text that the normalizer dropped. Runs at about half the speed of encode().
  Encoding encode_with_spans(std::string_view text, bool special = true) const;
  /// Decodes ids. Invalid UTF-8 is kept unchanged, because a token can end within a character.
  std::string decode(const std::vector<std::int32_t>& ids, bool skip_special = true) const;

  std::int64_t size() const;  // ids are 0 .. size()-1, including added tokens
  std::optional<std::int32_t> id(std::string_view token) const;
  std::string token(std::int32_t id) const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

/// Number of ill-formed sequences in a text. Each is encoded as one U+FFFD.
std::size_t invalid_utf8(std::string_view text);

/// One message of a conversation.
struct Message {
  std::string role;     // role in the chat template: "system", "user", "assistant", "tool", ...
  std::string content;  // text; "" if it has none
  /// JSON object with further keys for the chat template: "tool_calls", "tool_call_id", "name",
  /// "reasoning_content"; "" if there are none. It overrides role and content if it contains them
  /// ("content": null).
  std::string extra = {};
  bool train = true;  // use an assistant message's tokens as targets
};

/// Tokens of one conversation, and a mask of the answer tokens.
struct Conversation {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> answer;  // 1: assistant's answer, including the end mark
};

namespace text {
class ChatWriter;
}

/// The format in which a model family expects a conversation.
class ChatTemplate {
 public:
  /// Returns one of names(). Error for an unknown name; it lists them.
  static ChatTemplate by_name(std::string_view name);
  /// A model's own Jinja template, rendered as by transformers' apply_chat_template. Syntax errors
  /// and unsupported features are reported as an Error on first use.
  static ChatTemplate from_jinja(const ChatSource& source);
  static std::vector<std::string> names();

  /// Encodes a conversation. An answer begins at the end of its prompt; a token across that
  /// boundary belongs to the answer. Messages with train = false are not marked as answers.
  /// `tools`: JSON list of the functions that the model may call; "" if none. Throws Rejected
  /// (attune/rejected.hpp) if the template refuses the conversation or cannot represent part of it.
  /// Error if the tokenizer lacks a special token of the format.
  Conversation encode(const std::vector<Message>& messages, const Tokenizer& tokenizer,
                      std::string_view tools = {}) const;
  /// The conversation followed by the opening of the assistant's next answer.
  std::vector<std::int32_t> prompt(const std::vector<Message>& messages, const Tokenizer& tokenizer,
                                   std::string_view tools = {}) const;
  /// Name of the format; "jinja" for a model's own template.
  const std::string& name() const { return name_; }
  /// Text that ends an answer ("<|im_end|>"), at which generation stops. "" if the template has
  /// none.
  const std::string& end_of_turn() const;

 private:
  ChatTemplate(std::string name, std::shared_ptr<const text::ChatWriter> writer);
  std::string name_;
  std::shared_ptr<const text::ChatWriter> writer_;
};

}  // namespace attune
ATTUNE_API_END
