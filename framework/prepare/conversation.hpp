// Conversations of a row: messages, the tools they may call, and pairs of answers.
#pragma once
#include <attune/dataset.hpp>

#include <string>
#include <vector>

#include "prepare/values.hpp"

namespace attune {

/// Reads one row. docs/data.md lists the keys that are used, refused and left out.
class ConversationReader {
 public:
  ConversationReader(const Row& row, const RowJson& object) : row_(row), object_(object) {}

  /// "messages", "conversations" or "conversation", under the row's system message.
  std::vector<Message> conversation() const;
  /// The messages of one key: a list, one message, or a text, which `role` has written.
  std::vector<Message> messages(const std::string& key, const std::string& role) const;
  /// Puts the row's system message, where it has one, before these.
  void add_system(std::vector<Message>& messages) const;
  /// A JSON list of the functions that may be called; "": none.
  std::string tools() const;
  /// BadRow for a key of the row that would change what is learnt and cannot be honoured.
  void check_keys() const;
  /// prompt, chosen and rejected, and a conversation where there is one.
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
