// Text to token ids and back, and chat templates.
#pragma once
#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace attune {

/// Built from Hugging Face's tokenizer.json (GGUF vocabularies and vocab.txt are first turned into one). Immutable: threads may share it.
class Tokenizer {
 public:
  /// Error when a part is of a type that is not supported; it names the part.
  explicit Tokenizer(const nlohmann::json& tokenizer_json);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  /// Added tokens ("<|im_start|>") in the text are recognised. special: also what the post-processor adds ([CLS] ... [SEP]).
  /// Invalid UTF-8 is read as U+FFFD.
  std::vector<std::int32_t> encode(std::string_view text, bool special = true) const;
  /// Invalid UTF-8 in the result is kept as it is (a token can end inside a character).
  std::string decode(const std::vector<std::int32_t>& ids, bool skip_special = true) const;

  std::int64_t size() const;  // ids run from 0 to size()-1, added tokens included
  std::optional<std::int32_t> id(std::string_view token) const;
  std::string token(std::int32_t id) const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

struct Message {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

/// Tokens of one conversation, and which of them are an answer.
struct Conversation {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> answer;  // 1: written by the assistant, the closing mark included
};

class ChatTemplate {
 public:
  /// "chatml", "plain". Unknown: Error that lists the names.
  static ChatTemplate by_name(std::string_view name);
  /// Recognises the model's own template text (Jinja). Unknown: Error that names the option to set.
  static ChatTemplate recognise(std::string_view jinja);
  static std::vector<std::string> names();

  Conversation encode(const std::vector<Message>& messages, const Tokenizer& tokenizer) const;
  /// The conversation and the opening of the assistant's next answer.
  std::vector<std::int32_t> prompt(const std::vector<Message>& messages, const Tokenizer& tokenizer) const;
  const std::string& name() const { return name_; }
  /// The text that ends an answer ("<|im_end|>"); generation stops there.
  const std::string& end_of_turn() const { return end_of_turn_; }

 private:
  ChatTemplate() = default;
  std::string header_of(std::string_view role) const;
  void append(const Message& message, const Tokenizer& tokenizer, Conversation& conversation) const;
  std::string name_, before_role_, after_role_, end_of_turn_, after_turn_, default_system_;
};

}  // namespace attune
