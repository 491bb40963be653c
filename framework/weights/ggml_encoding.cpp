#include "weights/ggml_encoding.hpp"

#include <ATen/Parallel.h>
#include <c10/util/Half.h>
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/names.hpp"

namespace attune::weights {
namespace {

constexpr int block_values = 32;

// The blocks of ggml-common.h. Low nibbles are the first 16 values of a block, high nibbles the last 16.
struct Q4_0 {
  static constexpr std::uint32_t id = 2;
  std::uint16_t scale;
  std::uint8_t nibbles[16];
  void decode(float* values) const;
};
struct Q4_1 {
  static constexpr std::uint32_t id = 3;
  std::uint16_t scale, minimum;
  std::uint8_t nibbles[16];
  void decode(float* values) const;
};
struct Q5_0 {
  static constexpr std::uint32_t id = 6;
  std::uint16_t scale;
  std::uint8_t fifth_bits[4], nibbles[16];
  void decode(float* values) const;
};
struct Q5_1 {
  static constexpr std::uint32_t id = 7;
  std::uint16_t scale, minimum;
  std::uint8_t fifth_bits[4], nibbles[16];
  void decode(float* values) const;
};
struct Q8_0 {
  static constexpr std::uint32_t id = 8;
  std::uint16_t scale;
  std::int8_t values8[32];
  void decode(float* values) const;
};
static_assert(sizeof(Q4_0) == 18 && sizeof(Q4_1) == 20 && sizeof(Q5_0) == 22 && sizeof(Q5_1) == 24 && sizeof(Q8_0) == 34);

float from_half(std::uint16_t bits) { return c10::detail::fp16_ieee_to_fp32_value(bits); }

/// values[i] = scale * (q[i] - zero) + minimum
void decode_nibbles(const std::uint8_t* nibbles, float scale, int zero, float minimum, float* values) {
  for (int i = 0; i < 16; ++i) {
    values[i] = scale * static_cast<float>((nibbles[i] & 0xF) - zero) + minimum;
    values[i + 16] = scale * static_cast<float>((nibbles[i] >> 4) - zero) + minimum;
  }
}

/// As above; bit i of the 32 fifth bits belongs to value i.
void decode_nibbles_and_fifth_bit(const std::uint8_t* nibbles, const std::uint8_t* fifth_bits, float scale, int zero, float minimum, float* values) {
  std::uint32_t bits;
  std::memcpy(&bits, fifth_bits, sizeof bits);
  for (int i = 0; i < 16; ++i) {
    const int low = (nibbles[i] & 0xF) | static_cast<int>(bits >> i & 1) << 4;
    const int high = (nibbles[i] >> 4) | static_cast<int>(bits >> (i + 16) & 1) << 4;
    values[i] = scale * static_cast<float>(low - zero) + minimum;
    values[i + 16] = scale * static_cast<float>(high - zero) + minimum;
  }
}

void Q4_0::decode(float* values) const { decode_nibbles(nibbles, from_half(scale), 8, 0, values); }
void Q4_1::decode(float* values) const { decode_nibbles(nibbles, from_half(scale), 0, from_half(minimum), values); }
void Q5_0::decode(float* values) const { decode_nibbles_and_fifth_bit(nibbles, fifth_bits, from_half(scale), 16, 0, values); }
void Q5_1::decode(float* values) const { decode_nibbles_and_fifth_bit(nibbles, fifth_bits, from_half(scale), 0, from_half(minimum), values); }
void Q8_0::decode(float* values) const {
  const float factor = from_half(scale);
  for (int i = 0; i < 32; ++i) values[i] = factor * static_cast<float>(values8[i]);
}

template <class Block>
void dequantize(const std::byte* data, std::int64_t blocks, float* values) {
  constexpr std::int64_t grain = 4096;  // blocks: about 100 microseconds of work
  at::parallel_for(0, blocks, grain, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) {
      Block block;
      std::memcpy(&block, data + i * sizeof(Block), sizeof block);
      block.decode(values + i * block_values);
    }
  });
}

template <class Block>
constexpr Encoding quantized(const char* name) {
  return {Block::id, name, c10::ScalarType::Float, block_values, sizeof(Block), &dequantize<Block>};
}

constexpr Encoding encodings[] = {
    {0, "F32", c10::ScalarType::Float, 1, 4, nullptr},
    {1, "F16", c10::ScalarType::Half, 1, 2, nullptr},
    {30, "BF16", c10::ScalarType::BFloat16, 1, 2, nullptr},
    quantized<Q4_0>("Q4_0"),
    quantized<Q4_1>("Q4_1"),
    quantized<Q5_0>("Q5_0"),
    quantized<Q5_1>("Q5_1"),
    quantized<Q8_0>("Q8_0"),
};

/// By ggml_type.
constexpr const char* ggml_names[] = {"F32",     "F16",    "Q4_0",  "Q4_1",    "Q4_2",  "Q4_3",  "Q5_0",   "Q5_1", "Q8_0", "Q8_1",
                                      "Q2_K",    "Q3_K",   "Q4_K",  "Q5_K",    "Q6_K",  "Q8_K",  "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S",
                                      "IQ4_NL",  "IQ3_S",  "IQ2_S", "IQ4_XS",  "I8",    "I16",   "I32",    "I64",  "F64",  "IQ1_M", "BF16"};

}  // namespace

const Encoding* find_encoding(std::uint32_t id) {
  const auto found = std::find_if(std::begin(encodings), std::end(encodings), [&](const Encoding& encoding) { return encoding.id == id; });
  return found == std::end(encodings) ? nullptr : found;
}

std::string encoding_name(std::uint32_t id) { return id < std::size(ggml_names) ? ggml_names[id] : fmt::format("number {}", id); }

std::string supported_encodings() {
  std::vector<std::string> names;
  for (const auto& encoding : encodings) names.emplace_back(encoding.name);
  return joined(names);
}

}  // namespace attune::weights
