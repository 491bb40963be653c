// Conversion of GGUF metadata to transformers' config.json.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "weights/gguf.hpp"

namespace attune::weights {

/// model_type for the file's general.architecture. Error if it is not supported.
std::string model_type_of(const GgufFile& file);

/// Metadata under the architecture's prefix: size("block_count") reads "llama.block_count".
class ArchitectureKeys {
 public:
  explicit ArchitectureKeys(const GgufFile& file);

  bool has(const std::string& key) const { return find(key) != nullptr; }
  /// An integer from 1 to 2^31 - 1, or a list with one equal value per block. Error if it is absent
  /// and there is no fallback.
  std::int64_t size(const std::string& key, std::int64_t fallback = 0) const;
  /// A positive number, as the shortest decimal that converts to the same float32: the value that
  /// the file's author wrote.
  double real(const std::string& key, std::optional<double> fallback = std::nullopt) const;
  std::string text(const std::string& key, const std::string& fallback) const;
  bool flag(const std::string& key, bool fallback) const;
  /// Error unless the key is absent or has this value. For features of which only one variant is
  /// supported.
  void require(const std::string& key, double value) const;
  /// The full key: "llama.block_count".
  std::string full(const std::string& key) const { return prefix_ + key; }
  const GgufFile& file() const { return file_; }

 private:
  const nlohmann::json* find(const std::string& key) const;
  const GgufFile& file_;
  std::string prefix_;
};

}  // namespace attune::weights
