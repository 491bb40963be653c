#include "weights/ggml_encoding.hpp"

#include <ATen/Parallel.h>
#include <c10/util/Half.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/names.hpp"

namespace attune::weights {
namespace {

// The blocks of ggml-common.h. Each has its ggml_type, the number of its values, and decode(),
// which writes them.

struct Q4_0 {
  static constexpr std::uint32_t id = 2;
  static constexpr int count = 32;
  std::uint16_t scale;
  std::uint8_t nibbles[16];
  void decode(float* values) const;
};
struct Q4_1 {
  static constexpr std::uint32_t id = 3;
  static constexpr int count = 32;
  std::uint16_t scale;
  std::uint16_t minimum;
  std::uint8_t nibbles[16];
  void decode(float* values) const;
};
struct Q5_0 {
  static constexpr std::uint32_t id = 6;
  static constexpr int count = 32;
  std::uint16_t scale;
  std::uint8_t fifth_bits[4];
  std::uint8_t nibbles[16];
  void decode(float* values) const;
};
struct Q5_1 {
  static constexpr std::uint32_t id = 7;
  static constexpr int count = 32;
  std::uint16_t scale;
  std::uint16_t minimum;
  std::uint8_t fifth_bits[4];
  std::uint8_t nibbles[16];
  void decode(float* values) const;
};
struct Q8_0 {
  static constexpr std::uint32_t id = 8;
  static constexpr int count = 32;
  std::uint16_t scale;
  std::int8_t values8[32];
  void decode(float* values) const;
};
struct Q2_K {
  static constexpr std::uint32_t id = 10;
  static constexpr int count = 256;
  // of each 16 values: 4 bits of scale, 4 of minimum
  std::uint8_t scales[16];
  std::uint8_t pairs[64];
  std::uint16_t scale;
  std::uint16_t minimum;
  void decode(float* values) const;
};
struct Q3_K {
  static constexpr std::uint32_t id = 11;
  static constexpr int count = 256;
  std::uint8_t third_bits[32];
  std::uint8_t pairs[64];
  std::uint8_t scales[12];
  std::uint16_t scale;
  void decode(float* values) const;
};
struct Q4_K {
  static constexpr std::uint32_t id = 12;
  static constexpr int count = 256;
  std::uint16_t scale;
  std::uint16_t minimum;
  std::uint8_t scales[12];
  std::uint8_t nibbles[128];
  void decode(float* values) const;
};
struct Q5_K {
  static constexpr std::uint32_t id = 13;
  static constexpr int count = 256;
  std::uint16_t scale;
  std::uint16_t minimum;
  std::uint8_t scales[12];
  std::uint8_t fifth_bits[32];
  std::uint8_t nibbles[128];
  void decode(float* values) const;
};
struct Q6_K {
  static constexpr std::uint32_t id = 14;
  static constexpr int count = 256;
  std::uint8_t nibbles[128];
  std::uint8_t high_pairs[64];
  std::int8_t scales[16];
  std::uint16_t scale;
  void decode(float* values) const;
};
struct Q8_K {
  static constexpr std::uint32_t id = 15;
  static constexpr int count = 256;
  float scale;
  std::int8_t values8[256];
  std::int16_t sums[16];  // of 16 values each; dot products use them
  void decode(float* values) const;
};
struct IQ4_NL {
  static constexpr std::uint32_t id = 20;
  static constexpr int count = 32;
  std::uint16_t scale;
  std::uint8_t nibbles[16];
  void decode(float* values) const;
};
struct IQ4_XS {
  static constexpr std::uint32_t id = 23;
  static constexpr int count = 256;
  std::uint16_t scale;
  std::uint16_t high_scales;
  std::uint8_t low_scales[4];
  std::uint8_t nibbles[128];
  void decode(float* values) const;
};
struct TQ1_0 {
  static constexpr std::uint32_t id = 34;
  static constexpr int count = 256;
  // digits of base 3 in a byte
  std::uint8_t fives[48];
  std::uint8_t fours[4];
  std::uint16_t scale;
  void decode(float* values) const;
};
struct TQ2_0 {
  static constexpr std::uint32_t id = 35;
  static constexpr int count = 256;
  std::uint8_t pairs[64];
  std::uint16_t scale;
  void decode(float* values) const;
};
struct MXFP4 {
  static constexpr std::uint32_t id = 39;
  static constexpr int count = 32;
  std::uint8_t exponent;
  std::uint8_t nibbles[16];
  void decode(float* values) const;
};
static_assert(sizeof(Q4_0) == 18 && sizeof(Q4_1) == 20 && sizeof(Q5_0) == 22 &&
              sizeof(Q5_1) == 24 && sizeof(Q8_0) == 34);
static_assert(sizeof(Q2_K) == 84 && sizeof(Q3_K) == 110 && sizeof(Q4_K) == 144 &&
              sizeof(Q5_K) == 176 && sizeof(Q6_K) == 210 && sizeof(Q8_K) == 292);
static_assert(sizeof(IQ4_NL) == 18 && sizeof(IQ4_XS) == 136 && sizeof(TQ1_0) == 54 &&
              sizeof(TQ2_0) == 66 && sizeof(MXFP4) == 17);

float from_half(std::uint16_t bits) { return c10::detail::fp16_ieee_to_fp32_value(bits); }

constexpr float no_minimum = -0.0f;  // unlike 0.0f, it keeps the sign of a zero that it is added to

/// values[i] = scale * (q[i] - zero) + minimum. Low nibbles are the first 16 values, high nibbles
/// the last 16.
void decode_nibbles(const std::uint8_t* nibbles, float scale, int zero, float minimum,
                    float* values) {
  for (int i = 0; i < 16; ++i)
    values[i] = scale * static_cast<float>((nibbles[i] & 0xF) - zero) + minimum;
  for (int i = 0; i < 16; ++i)
    values[i + 16] = scale * static_cast<float>((nibbles[i] >> 4) - zero) + minimum;
}

/// As above; bit i of the 32 fifth bits belongs to value i.
void decode_nibbles_and_fifth_bit(const std::uint8_t* nibbles, const std::uint8_t* fifth_bits,
                                  float scale, int zero, float minimum, float* values) {
  std::uint32_t bits;
  std::memcpy(&bits, fifth_bits, sizeof bits);
  for (int i = 0; i < 16; ++i) {
    const int low = (nibbles[i] & 0xF) | static_cast<int>(bits >> i & 1) << 4;
    values[i] = scale * static_cast<float>(low - zero) + minimum;
  }
  for (int i = 0; i < 16; ++i) {
    const int high = (nibbles[i] >> 4) | static_cast<int>(bits >> (i + 16) & 1) << 4;
    values[i + 16] = scale * static_cast<float>(high - zero) + minimum;
  }
}

/// values[i] = scale * table[q[i]], in the order of decode_nibbles.
void decode_by_table(const std::uint8_t* nibbles, float scale, const float (&table)[16],
                     float* values) {
  for (int i = 0; i < 16; ++i) {
    values[i] = scale * table[nibbles[i] & 0xF];
    values[i + 16] = scale * table[nibbles[i] >> 4];
  }
}

void Q4_0::decode(float* values) const {
  decode_nibbles(nibbles, from_half(scale), 8, no_minimum, values);
}
void Q4_1::decode(float* values) const {
  decode_nibbles(nibbles, from_half(scale), 0, from_half(minimum), values);
}
void Q5_0::decode(float* values) const {
  decode_nibbles_and_fifth_bit(nibbles, fifth_bits, from_half(scale), 16, no_minimum, values);
}
void Q5_1::decode(float* values) const {
  decode_nibbles_and_fifth_bit(nibbles, fifth_bits, from_half(scale), 0, from_half(minimum),
                               values);
}
void Q8_0::decode(float* values) const {
  const float factor = from_half(scale);
  for (int i = 0; i < 32; ++i) values[i] = factor * static_cast<float>(values8[i]);
}

void Q2_K::decode(float* values) const {
  const float factor = from_half(scale);
  const float offset = from_half(minimum);
  for (int group = 0; group < 16; ++group, values += 16) {
    const float step = factor * static_cast<float>(scales[group] & 0xF);
    const float least = offset * static_cast<float>(scales[group] >> 4);
    const auto* bytes = pairs + group / 8 * 32 + group % 2 * 16;
    const int shift = group % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i)
      values[i] = step * static_cast<float>(bytes[i] >> shift & 3) - least;
  }
}

void Q3_K::decode(float* values) const {
  const float factor = from_half(scale);
  for (int group = 0; group < 16; ++group, values += 16) {
    const int low_bits = scales[group % 8] >> group / 8 * 4 & 0xF;
    const int high_bits = scales[8 + group % 4] >> group / 4 * 2 & 3;
    const float step = factor * static_cast<float>((low_bits | high_bits << 4) - 32);
    const auto* bytes = pairs + group / 8 * 32 + group % 2 * 16;
    const auto* thirds = third_bits + group % 2 * 16;
    const int shift = group % 8 / 2 * 2;
    const int third = group / 2;
    for (int i = 0; i < 16; ++i) {
      const int q =
          // a third bit that is 0 means minus 4
          (bytes[i] >> shift & 3) + (thirds[i] >> third & 1) * 4 - 4;
      values[i] = step * static_cast<float>(q);
    }
  }
}

/// Q4_K and Q5_K: 6 bits of scale and 6 of minimum for each of 8 groups. The first 4 groups have
/// bytes of their own, whose upper 2 bits are those of the last 4 groups.
struct GroupScale {
  GroupScale(const std::uint8_t (&packed)[12], int group) {
    const auto* scales = packed;
    const auto* minima = packed + 4;
    const auto* nibbles = packed + 8;
    const int at = group % 4;
    scale = static_cast<float>(group < 4 ? scales[at] & 0x3F
                                         : (nibbles[at] & 0xF) | (scales[at] >> 6) << 4);
    minimum = static_cast<float>(group < 4 ? minima[at] & 0x3F
                                           : nibbles[at] >> 4 | (minima[at] >> 6) << 4);
  }
  float scale;
  float minimum;
};

void Q4_K::decode(float* values) const {
  const float factor = from_half(scale);
  const float offset = from_half(minimum);
  for (int group = 0; group < 8; ++group, values += 32) {
    const GroupScale own(scales, group);
    const float step = factor * own.scale;
    const float least = offset * own.minimum;
    const auto* bytes = nibbles + group / 2 * 32;
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i)
      values[i] = step * static_cast<float>(bytes[i] >> shift & 0xF) - least;
  }
}

void Q5_K::decode(float* values) const {
  const float factor = from_half(scale);
  const float offset = from_half(minimum);
  for (int group = 0; group < 8; ++group, values += 32) {
    const GroupScale own(scales, group);
    const float step = factor * own.scale;
    const float least = offset * own.minimum;
    const auto* bytes = nibbles + group / 2 * 32;
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      const int q = (bytes[i] >> shift & 0xF) | (fifth_bits[i] >> group & 1) << 4;
      values[i] = step * static_cast<float>(q) - least;
    }
  }
}

void Q6_K::decode(float* values) const {
  const float factor = from_half(scale);
  for (int group = 0; group < 16; ++group, values += 16) {
    const float step = factor * static_cast<float>(scales[group]);
    const auto* low = nibbles + group / 8 * 64 + group % 4 * 16;
    const auto* high = high_pairs + group / 8 * 32 + group % 2 * 16;
    const int low_shift = group % 8 / 4 * 4;
    const int high_shift = group % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i) {
      const int q = (low[i] >> low_shift & 0xF) | (high[i] >> high_shift & 3) << 4;
      values[i] = step * static_cast<float>(q - 32);
    }
  }
}

void Q8_K::decode(float* values) const {
  for (int i = 0; i < 256; ++i) values[i] = scale * static_cast<float>(values8[i]);
}

constexpr float uneven_steps[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};

void IQ4_NL::decode(float* values) const {
  decode_by_table(nibbles, from_half(scale), uneven_steps, values);
}

void IQ4_XS::decode(float* values) const {
  const float factor = from_half(scale);
  for (int group = 0; group < 8; ++group) {
    const int low_bits = low_scales[group / 2] >> group % 2 * 4 & 0xF;
    const int high_bits = high_scales >> group * 2 & 3;
    decode_by_table(nibbles + group * 16,
                    factor * static_cast<float>((low_bits | high_bits << 4) - 32), uneven_steps,
                    values + group * 32);
  }
}

/// Digit number `digit` of the base-3 numbers in bytes[0..count), each times scale: a byte holds
/// ceil(256 / 243 * number).
void decode_ternary(const std::uint8_t* bytes, int count, int digit, float scale, float* values) {
  constexpr int powers[] = {1, 3, 9, 27, 81};
  for (int i = 0; i < count; ++i) {
    const auto rest = static_cast<std::uint8_t>(bytes[i] * powers[digit]);
    values[i] = scale * static_cast<float>((rest * 3 >> 8) - 1);
  }
}

void TQ1_0::decode(float* values) const {
  const float factor = from_half(scale);
  for (int digit = 0; digit < 5; ++digit)
    decode_ternary(fives, 32, digit, factor, values + digit * 32);
  for (int digit = 0; digit < 5; ++digit)
    decode_ternary(fives + 32, 16, digit, factor, values + 160 + digit * 16);
  for (int digit = 0; digit < 4; ++digit)
    decode_ternary(fours, 4, digit, factor, values + 240 + digit * 4);
}

void TQ2_0::decode(float* values) const {
  const float factor = from_half(scale);
  for (int group = 0; group < 8; ++group, values += 32) {
    const auto* bytes = pairs + group / 4 * 32;
    const int shift = group % 4 * 2;
    for (int i = 0; i < 32; ++i)
      values[i] = factor * static_cast<float>((bytes[i] >> shift & 3) - 1);
  }
}

/// OCP Microscaling Formats 1.0: nibbles are floats of 2 bits of exponent and 1 of mantissa; the
/// table holds twice their values, and the scale is half of 2^(exponent - 127).
void MXFP4::decode(float* values) const {
  constexpr float table[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  decode_by_table(nibbles, std::ldexp(1.0f, exponent - 128), table, values);
}

template <class Block>
void dequantize(const std::byte* data, std::int64_t blocks, float* values) {
  constexpr std::int64_t grain = 131072 / Block::count;  // about 100 microseconds of work
  at::parallel_for(0, blocks, grain, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) {
      Block block;
      std::memcpy(&block, data + i * sizeof(Block), sizeof block);
      block.decode(values + i * Block::count);
    }
  });
}

template <class Block>
constexpr GgmlEncoding quantized(const char* name) {
  return {Block::id, name, c10::ScalarType::Float, Block::count, sizeof(Block), &dequantize<Block>};
}

constexpr GgmlEncoding encodings[] = {
    {0, "F32", c10::ScalarType::Float, 1, 4, nullptr},
    {28, "F64", c10::ScalarType::Double, 1, 8, nullptr},
    {1, "F16", c10::ScalarType::Half, 1, 2, nullptr},
    {30, "BF16", c10::ScalarType::BFloat16, 1, 2, nullptr},
    quantized<Q4_0>("Q4_0"),
    quantized<Q4_1>("Q4_1"),
    quantized<Q5_0>("Q5_0"),
    quantized<Q5_1>("Q5_1"),
    quantized<Q8_0>("Q8_0"),
    quantized<Q2_K>("Q2_K"),
    quantized<Q3_K>("Q3_K"),
    quantized<Q4_K>("Q4_K"),
    quantized<Q5_K>("Q5_K"),
    quantized<Q6_K>("Q6_K"),
    quantized<Q8_K>("Q8_K"),
    quantized<IQ4_NL>("IQ4_NL"),
    quantized<IQ4_XS>("IQ4_XS"),
    quantized<MXFP4>("MXFP4"),
    quantized<TQ1_0>("TQ1_0"),
    quantized<TQ2_0>("TQ2_0"),
};

/// By ggml_type.
constexpr const char* ggml_names[] = {
    "F32",   "F16",        "Q4_0",       "Q4_1",       "Q4_2",     "Q4_3",     "Q5_0",
    "Q5_1",  "Q8_0",       "Q8_1",       "Q2_K",       "Q3_K",     "Q4_K",     "Q5_K",
    "Q6_K",  "Q8_K",       "IQ2_XXS",    "IQ2_XS",     "IQ3_XXS",  "IQ1_S",    "IQ4_NL",
    "IQ3_S", "IQ2_S",      "IQ4_XS",     "I8",         "I16",      "I32",      "I64",
    "F64",   "IQ1_M",      "BF16",       "Q4_0_4_4",   "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",
    "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4",    "NVFP4",    "Q1_0"};

}  // namespace

const GgmlEncoding* find_encoding(std::uint32_t id) {
  const auto found = std::find_if(std::begin(encodings), std::end(encodings),
                                  [&](const GgmlEncoding& encoding) { return encoding.id == id; });
  return found == std::end(encodings) ? nullptr : found;
}

std::string encoding_name(std::uint32_t id) {
  return id < std::size(ggml_names) ? ggml_names[id] : fmt::format("number {}", id);
}

std::string supported_encodings() {
  std::vector<std::string> names;
  for (const auto& encoding : encodings) names.emplace_back(encoding.name);
  return joined(names);
}

}  // namespace attune::weights
