// ggml's tensor encodings: plain numbers, or blocks of 32 or 256 values with a common scale.
#pragma once
#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace attune::weights {

struct GgmlEncoding {
  std::uint32_t id;  // ggml_type
  const char* name;
  c10::ScalarType type;        // of the tensor returned by read()
  std::uint64_t block_values;  // 1: plain numbers
  std::uint64_t block_bytes;
  /// Writes blocks * block_values floats, in parallel. Null for plain numbers.
  void (*dequantize)(const std::byte* data, std::int64_t blocks, float* values);
};

/// Null if the encoding is not supported.
const GgmlEncoding* find_encoding(std::uint32_t id);
/// "Q4_K", or "number 99" for an unknown encoding.
std::string encoding_name(std::uint32_t id);
/// Comma-separated names: "F32, F16, ..."
std::string supported_encodings();

}  // namespace attune::weights
