// The metadata of a GGUF file as the config.json that transformers would have.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "weights/gguf.hpp"

namespace attune::weights {

/// model_type of the file's architecture (general.architecture). Error for one that is not
/// supported.
std::string model_type_of(const GgufFile& file);

/// The metadata under the architecture's name: "llama.block_count" is size("block_count").
class ArchitectureKeys {
 public:
  explicit ArchitectureKeys(const GgufFile& file);

  bool has(const std::string& key) const { return find(key) != nullptr; }
  /// A number from 1 to 2^31 - 1; a list of them, one for each block, when all are equal. Error
  /// without one and without a fallback.
  std::int64_t size(const std::string& key, std::int64_t fallback = 0) const;
  /// A positive number: the shortest decimal that reads back as the same float32, which is what the
  /// file's author wrote.
  double real(const std::string& key, std::optional<double> fallback = std::nullopt) const;
  std::string text(const std::string& key, const std::string& fallback) const;
  bool flag(const std::string& key, bool fallback) const;
  /// Error unless the key is absent or has this value: with another one the model would compute
  /// something that is not supported.
  void require(const std::string& key, double value) const;
  /// "llama.block_count"
  std::string full(const std::string& key) const { return prefix_ + key; }
  const GgufFile& file() const { return file_; }

 private:
  const nlohmann::json* find(const std::string& key) const;
  const GgufFile& file_;
  std::string prefix_;
};

}  // namespace attune::weights
