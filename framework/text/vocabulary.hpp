// Tokens and their ids.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace attune::text {

class Vocabulary {
 public:
  Vocabulary() = default;
  /// json: an object, token -> id.
  explicit Vocabulary(const nlohmann::json& json);

  /// Adds a token, or changes the id of an existing one.
  void add(const std::string& token, std::int32_t id);
  std::optional<std::int32_t> id(std::string_view token) const;
  /// nullptr if no token has this id.
  const std::string* token(std::int32_t id) const;
  template <class Is>
  bool all_of(Is is) const {
    return std::all_of(ids_.begin(), ids_.end(),
                       [&](const auto& entry) { return is(entry.first); });
  }
  /// All tokens in byte order; the vocabulary owns the texts.
  std::vector<std::pair<std::string_view, std::int32_t>> sorted() const;
  std::int32_t largest_id() const { return largest_; }  // -1 when empty

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>> ids_;
  std::unordered_map<std::int32_t, const std::string*> tokens_;
  std::int32_t largest_ = -1;
};

/// The ids of the 256 tokens "<0x00>" to "<0xFF>", which represent bytes without another token.
class ByteTokens {
 public:
  explicit ByteTokens(const Vocabulary& vocabulary);
  /// Whether all bytes of the text have a token.
  bool cover(std::string_view text) const;
  std::int32_t operator[](char byte) const { return ids_[static_cast<unsigned char>(byte)]; }

 private:
  std::array<std::int32_t, 256> ids_;  // -1: none
};

/// The id of a model's unknown token; absent if `token` is empty. Error if it is not in the
/// vocabulary. model: "BPE", ...
std::optional<std::int32_t> unknown_id(const Vocabulary& vocabulary, const std::string& token,
                                       std::string_view model);

/// Reads an id of tokenizer.json. Error if it is not an integer from 0 to 2^31 - 1.
std::int32_t checked_id(const nlohmann::json& json, std::string_view token);

}  // namespace attune::text
