// Conversations in rows: messages, available tools, and preference pairs.
#pragma once
#include <attune/dataset.hpp>

#include <string>
#include <vector>

#include "prepare/values.hpp"

namespace attune {

/// Reads one row. docs/data.md lists the keys that are used, rejected and ignored.
class ConversationReader {
 public:
  ConversationReader(const Row& row, const RowJson& object) : row_(row), object_(object) {}

  /// "messages", "conversations" or "conversation", preceded by the row's system message.
  std::vector<Message> conversation() const;
  /// The messages under one key: a list, a single message, or a text with role `role`.
  std::vector<Message> messages(const std::string& key, const std::string& role) const;
  /// Prepends the row's system message, if it has one.
  void add_system(std::vector<Message>& messages) const;
  /// JSON list of the functions that the model may call; "" if none.
  std::string tools() const;
  /// BadRow for a key that would affect training and is not supported.
  void check_keys() const;
  /// Sets prompt, chosen, rejected and, if there is one, the conversation.
  void set_preference(Record& record) const;

 private:
  struct Answers;
  Message message(const RowJson& entry) const;
  void check_key(const std::string& key, const RowJson& value) const;
  bool is_trained(const RowJson& entry, const std::string& role) const;
  std::string content(const RowJson& value) const;
  RowJson extra(const RowJson& entry) const;
  RowJson tool_calls(const RowJson& entry) const;
  RowJson checked_calls(RowJson calls) const;
  RowJson functions_of(const char* key) const;

  bool has_conversation() const;
  Answers answers() const;
  std::vector<Message> context(const Answers& pair) const;
  std::vector<Message> given_context(const Answers& pair) const;
  void check_prompt(const std::vector<Message>& context) const;

  const Row& row_;
  const RowJson& object_;
};

}  // namespace attune
