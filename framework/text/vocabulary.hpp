// Tokens and their ids.
#pragma once
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

namespace attune::text {

class Vocabulary {
 public:
  Vocabulary() = default;
  /// An object: token -> id.
  explicit Vocabulary(const nlohmann::json& json);

  /// A token that is there already gets this id.
  void add(const std::string& token, std::int32_t id);
  std::optional<std::int32_t> id(std::string_view token) const;
  /// null: no token has this id.
  const std::string* token(std::int32_t id) const;
  std::int32_t largest_id() const { return largest_; }  // -1 when empty

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>> ids_;
  std::unordered_map<std::int32_t, const std::string*> tokens_;
  std::int32_t largest_ = -1;
};

/// An id as tokenizer.json writes it. Error when it is not a whole number from 0 to 2^31 - 1.
std::int32_t checked_id(const nlohmann::json& json, std::string_view token);

}  // namespace attune::text
