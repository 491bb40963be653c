// Compiled once for each instruction set by foreach_target.h, which includes this file again and
// again.
#include "kernels/rows.hpp"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rows.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace attune::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

/// Whole vectors first; what is left over lane by lane, with vectors of one lane. work(tag, first).
template <class Work>
HWY_INLINE void for_each_vector(std::size_t n, Work&& work) {
  const D d;
  std::size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) work(d, i);
  for (const hn::CappedTag<float, 1> one; i < n; ++i) work(one, i);
}

/// Sum of term(tag, i) over i = 0 .. n - 1.
template <class Term>
HWY_INLINE float sum_of(std::size_t n, Term&& term) {
  const D d;
  V sum = hn::Zero(d);
  V other = hn::Zero(d);
  const std::size_t step = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + 2 * step <= n; i += 2 * step) {
    sum = hn::Add(sum, term(d, i));
    other = hn::Add(other, term(d, i + step));
  }
  for (; i + step <= n; i += step) sum = hn::Add(sum, term(d, i));
  float total = hn::GetLane(hn::SumOfLanes(d, hn::Add(sum, other)));
  for (const hn::CappedTag<float, 1> one; i < n; ++i) total += hn::GetLane(term(one, i));
  return total;
}

/// 1 / (1 + exp(-x)). Below -87 the exponential is infinite in float, and the result zero, as it
/// should be.
template <class Tag, class Vector>
HWY_INLINE Vector sigmoid(Tag d, Vector x) {
  const auto one = hn::Set(d, 1.0f);
  return hn::Div(
      one, hn::Add(one, hn::Exp(d, hn::Neg(hn::Clamp(x, hn::Set(d, -87.0f), hn::Set(d, 87.0f))))));
}

void swiglu(const float* HWY_RESTRICT gate, const float* HWY_RESTRICT up, float* HWY_RESTRICT out,
            std::size_t n) {
  for_each_vector(n, [&](auto d, std::size_t i) {
    const auto g = hn::LoadU(d, gate + i);
    hn::StoreU(hn::Mul(hn::Mul(g, sigmoid(d, g)), hn::LoadU(d, up + i)), d, out + i);
  });
}

void swiglu_backward(const float* HWY_RESTRICT gate, const float* HWY_RESTRICT up,
                     const float* HWY_RESTRICT dy, float* HWY_RESTRICT dgate,
                     float* HWY_RESTRICT dup, std::size_t n) {
  for_each_vector(n, [&](auto d, std::size_t i) {
    const auto g = hn::LoadU(d, gate + i);
    const auto grad = hn::LoadU(d, dy + i);
    const auto s = sigmoid(d, g);
    const auto silu = hn::Mul(g, s);
    hn::StoreU(hn::Mul(grad, silu), d, dup + i);
    // silu' = s + silu (1 - s)
    const auto slope = hn::Add(s, hn::NegMulAdd(silu, s, silu));
    hn::StoreU(hn::Mul(hn::Mul(grad, hn::LoadU(d, up + i)), slope), d, dgate + i);
  });
}

void rms_norm(const float* HWY_RESTRICT x, const float* HWY_RESTRICT weight, float eps,
              float* HWY_RESTRICT y, float* HWY_RESTRICT scale, std::size_t rows,
              std::size_t width) {
  for (std::size_t row = 0; row < rows; ++row, x += width, y += width) {
    const float squares = sum_of(width, [&](auto d, std::size_t i) {
      return hn::Mul(hn::LoadU(d, x + i), hn::LoadU(d, x + i));
    });
    const float s = scale[row] = 1.0f / std::sqrt(squares / static_cast<float>(width) + eps);
    for_each_vector(width, [&](auto d, std::size_t i) {
      hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, x + i), hn::Set(d, s)), hn::LoadU(d, weight + i)), d,
                 y + i);
    });
  }
}

// With n = x scale and g = dy weight: dx = scale (g - n mean(g n)), dweight = sum over rows of dy
// n.
void rms_norm_backward(const float* HWY_RESTRICT x, const float* HWY_RESTRICT weight,
                       const float* HWY_RESTRICT scale, const float* HWY_RESTRICT dy,
                       float* HWY_RESTRICT dx, float* HWY_RESTRICT dweight, std::size_t rows,
                       std::size_t width) {
  for (std::size_t row = 0; row < rows; ++row, x += width, dy += width) {
    const float s = scale[row];
    if (dx) {
      const float along = s / static_cast<float>(width) * sum_of(width, [&](auto d, std::size_t i) {
                            return hn::Mul(hn::Mul(hn::LoadU(d, dy + i), hn::LoadU(d, weight + i)),
                                           hn::LoadU(d, x + i));
                          });
      for_each_vector(width, [&](auto d, std::size_t i) {
        const auto g = hn::Mul(hn::LoadU(d, dy + i), hn::LoadU(d, weight + i));
        hn::StoreU(
            hn::Mul(hn::Set(d, s), hn::NegMulAdd(hn::LoadU(d, x + i), hn::Set(d, s * along), g)), d,
            dx + i);
      });
      dx += width;
    }
    if (dweight)
      for_each_vector(width, [&](auto d, std::size_t i) {
        hn::StoreU(hn::MulAdd(hn::Mul(hn::LoadU(d, dy + i), hn::Set(d, s)), hn::LoadU(d, x + i),
                              hn::LoadU(d, dweight + i)),
                   d, dweight + i);
      });
  }
}

void rotate(const float* HWY_RESTRICT x, const float* HWY_RESTRICT cosine,
            const float* HWY_RESTRICT sine, float* HWY_RESTRICT y, std::size_t rows,
            std::size_t heads, std::size_t half, bool backwards) {
  const float direction = backwards ? -1.0f : 1.0f;
  for (std::size_t row = 0; row < rows; ++row, cosine += half, sine += half)
    for (std::size_t head = 0; head < heads; ++head, x += 2 * half, y += 2 * half)
      for_each_vector(half, [&](auto d, std::size_t i) {
        const auto first = hn::LoadU(d, x + i);
        const auto second = hn::LoadU(d, x + half + i);
        const auto c = hn::LoadU(d, cosine + i);
        const auto s = hn::Mul(hn::LoadU(d, sine + i), hn::Set(d, direction));
        hn::StoreU(hn::NegMulAdd(second, s, hn::Mul(first, c)), d, y + i);
        hn::StoreU(hn::MulAdd(first, s, hn::Mul(second, c)), d, y + half + i);
      });
}

SoftmaxSums softmax(float* scores, std::size_t n) {
  const D d;
  float largest = scores[0];
  V most = hn::Set(d, largest);
  std::size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) most = hn::Max(most, hn::LoadU(d, scores + i));
  largest = hn::GetLane(hn::MaxOfLanes(d, most));
  for (; i < n; ++i) largest = scores[i] > largest ? scores[i] : largest;
  const float total = sum_of(n, [&](auto tag, std::size_t at) {
    const auto e = hn::Exp(tag, hn::Sub(hn::LoadU(tag, scores + at), hn::Set(tag, largest)));
    hn::StoreU(e, tag, scores + at);
    return e;
  });
  const float share = 1.0f / total;
  for_each_vector(n, [&](auto tag, std::size_t at) {
    hn::StoreU(hn::Mul(hn::LoadU(tag, scores + at), hn::Set(tag, share)), tag, scores + at);
  });
  return {largest + std::log(total), largest};
}

void softmax_again(float* scores, float log_total, std::size_t n) {
  for_each_vector(n, [&](auto d, std::size_t i) {
    hn::StoreU(hn::Exp(d, hn::Sub(hn::LoadU(d, scores + i), hn::Set(d, log_total))), d, scores + i);
  });
}

void softmax_backward(const float* HWY_RESTRICT p, float* HWY_RESTRICT dp, float projected,
                      float scale, std::size_t n) {
  for_each_vector(n, [&](auto d, std::size_t i) {
    const auto change =
        hn::Mul(hn::Sub(hn::LoadU(d, dp + i), hn::Set(d, projected)), hn::Set(d, scale));
    hn::StoreU(hn::Mul(hn::LoadU(d, p + i), change), d, dp + i);
  });
}

float dot(const float* a, const float* b, std::size_t n) {
  return sum_of(
      n, [&](auto d, std::size_t i) { return hn::Mul(hn::LoadU(d, a + i), hn::LoadU(d, b + i)); });
}

using U32 = hn::ScalableTag<std::uint32_t>;
using Words = hn::Vec<U32>;

/// The upper halves of the products of 32-bit words.
HWY_INLINE Words multiplied_high(Words a, Words b) {
  const U32 d;
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(d,
                 static_cast<std::uint32_t>(std::uint64_t{hn::GetLane(a)} * hn::GetLane(b) >> 32));
#else
  const Words even = hn::BitCast(d, hn::MulEven(a, b));
  const Words odd = hn::BitCast(d, hn::MulEven(hn::DupOdd(a), hn::DupOdd(b)));
  return hn::OddEven(odd, hn::DupOdd(even));
#endif
}

/// Four words for every counter (first + lane, row, 0, 0), one after the other.
HWY_INLINE void philox(std::uint64_t key, std::uint32_t row, std::uint32_t first,
                       std::uint32_t* HWY_RESTRICT out) {
  const U32 d;
  Words c0 = hn::Iota(d, first);
  Words c1 = hn::Set(d, row);
  Words c2 = hn::Zero(d);
  Words c3 = hn::Zero(d);
  auto k0 = static_cast<std::uint32_t>(key);
  auto k1 = static_cast<std::uint32_t>(key >> 32);
  const Words m0 = hn::Set(d, 0xD2511F53u);
  const Words m1 = hn::Set(d, 0xCD9E8D57u);
  for (int round = 0; round < 10; ++round) {
    const Words high0 = multiplied_high(m0, c0);
    const Words low0 = hn::Mul(m0, c0);
    const Words high1 = multiplied_high(m1, c2);
    const Words low1 = hn::Mul(m1, c2);
    c0 = hn::Xor(hn::Xor(high1, c1), hn::Set(d, k0));
    c1 = low1;
    c2 = hn::Xor(hn::Xor(high0, c3), hn::Set(d, k1));
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  hn::StoreInterleaved4(c0, c1, c2, c3, d, out);
}

/// work(first, numbers, count) for the numbers in order, a few at a time.
template <class Work>
HWY_INLINE void for_each_uniform(std::uint64_t key, std::uint32_t row, std::size_t n, Work&& work) {
  const D d;
  const hn::RebindToSigned<D> integers;
  HWY_ALIGN std::uint32_t words[4 * HWY_MAX_BYTES / sizeof(std::uint32_t)];
  HWY_ALIGN float numbers[4 * HWY_MAX_BYTES / sizeof(float)];
  const std::size_t each = 4 * hn::Lanes(U32());
  for (std::size_t first = 0; first < n; first += each) {
    philox(key, row, static_cast<std::uint32_t>(first / 4), words);
    for (std::size_t i = 0; i < each; i += hn::Lanes(d)) {
      const auto upper = hn::BitCast(integers, hn::ShiftRight<8>(hn::Load(U32(), words + i)));
      hn::Store(hn::Mul(hn::ConvertTo(d, upper), hn::Set(d, 0x1p-24f)), d, numbers + i);
    }
    work(first, numbers, std::min(each, n - first));
  }
}

void uniform(std::uint64_t key, std::uint32_t row, float* HWY_RESTRICT out, std::size_t n) {
  for_each_uniform(key, row, n, [&](std::size_t first, const float* numbers, std::size_t count) {
    std::copy_n(numbers, count, out + first);
  });
}

void dropout(std::uint64_t key, std::uint32_t row, const float* HWY_RESTRICT x, float p,
             float scale, float* HWY_RESTRICT y, std::size_t n) {
  for_each_uniform(key, row, n, [&](std::size_t first, const float* numbers, std::size_t count) {
    for_each_vector(count, [&](auto d, std::size_t i) {
      const auto is_kept = hn::Ge(hn::LoadU(d, numbers + i), hn::Set(d, p));
      hn::StoreU(
          hn::IfThenElseZero(is_kept, hn::Mul(hn::LoadU(d, x + first + i), hn::Set(d, scale))), d,
          y + first + i);
    });
  });
}

/// The bits of x in bfloat16, as round_evenly() has them, in 32 bits each. place: of the first one.
template <class Tag>
HWY_INLINE auto rounded_bits(Tag d, const float* x, std::uint32_t place) {
  const hn::RebindToUnsigned<Tag> as_bits;
  const auto places = hn::Iota(as_bits, place);
  const auto threshold =
      hn::And(hn::Mul(places, hn::Set(as_bits, golden_ratio)), hn::Set(as_bits, 0xFFFFU));
  const auto values = hn::LoadU(d, x);
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::BitCast(as_bits, values), threshold));
  return hn::IfThenElse(hn::RebindMask(as_bits, hn::IsNaN(values)), hn::Set(as_bits, 0x7FC0U),
                        rounded);
}

void round_evenly(const float* x, std::uint64_t first, std::uint16_t* y, std::size_t n) {
  for_each_vector(n, [&](auto d, std::size_t i) HWY_ATTR {
    const hn::Rebind<std::uint16_t, decltype(d)> as_upper;
    const auto bits = rounded_bits(d, x + i, static_cast<std::uint32_t>(first + i));
    hn::StoreU(hn::TruncateTo(as_upper, bits), as_upper, y + i);
  });
}

void follow_rounded(float* x, std::uint64_t first, const std::uint16_t* y, std::size_t n) {
  for_each_vector(n, [&](auto d, std::size_t i) HWY_ATTR {
    const hn::RebindToUnsigned<decltype(d)> as_bits;
    const hn::Rebind<std::uint16_t, decltype(d)> as_upper;
    const auto theirs = hn::PromoteTo(as_bits, hn::LoadU(as_upper, y + i));
    const auto ours = rounded_bits(d, x + i, static_cast<std::uint32_t>(first + i));
    const auto is_same = hn::RebindMask(d, hn::Eq(ours, theirs));
    const auto wide = hn::BitCast(d, hn::ShiftLeft<16>(theirs));
    hn::StoreU(hn::IfThenElse(is_same, hn::LoadU(d, x + i), wide), d, x + i);
  });
}

bool is_zero(const float* x, std::size_t n) {
  const D d;
  std::size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d))
    if (!hn::AllTrue(d, hn::Eq(hn::LoadU(d, x + i), hn::Zero(d)))) return false;
  for (; i < n; ++i)
    if (x[i] != 0) return false;
  return true;
}

void scale(float* x, float factor, std::size_t n) {
  if (factor == 1) return;
  for_each_vector(n, [&](auto d, std::size_t i) {
    hn::StoreU(hn::Mul(hn::LoadU(d, x + i), hn::Set(d, factor)), d, x + i);
  });
}

void adamw(const AdamW& u, const float* HWY_RESTRICT gradient, float* HWY_RESTRICT parameter,
           float* HWY_RESTRICT first, float* HWY_RESTRICT second, std::size_t n) {
  for_each_vector(n, [&](auto d, std::size_t i) {
    const auto g = hn::Mul(hn::LoadU(d, gradient + i), hn::Set(d, u.scale));
    const auto m =
        hn::MulAdd(hn::Set(d, u.beta1), hn::LoadU(d, first + i), hn::Mul(hn::Set(d, u.rest1), g));
    const auto v = hn::MulAdd(hn::Set(d, u.beta2), hn::LoadU(d, second + i),
                              hn::Mul(hn::Set(d, u.rest2), hn::Mul(g, g)));
    const auto length = hn::MulAdd(hn::Sqrt(v), hn::Set(d, u.root), hn::Set(d, u.epsilon));
    hn::StoreU(m, d, first + i);
    hn::StoreU(v, d, second + i);
    hn::StoreU(hn::Sub(hn::Mul(hn::LoadU(d, parameter + i), hn::Set(d, u.keep)),
                       hn::Mul(hn::Set(d, u.rate), hn::Div(m, length))),
               d, parameter + i);
  });
}

}  // namespace attune::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attune::kernels {

HWY_EXPORT(swiglu);
HWY_EXPORT(swiglu_backward);
HWY_EXPORT(rms_norm);
HWY_EXPORT(rms_norm_backward);
HWY_EXPORT(rotate);
HWY_EXPORT(softmax);
HWY_EXPORT(softmax_again);
HWY_EXPORT(softmax_backward);
HWY_EXPORT(dot);
HWY_EXPORT(uniform);
HWY_EXPORT(dropout);
HWY_EXPORT(is_zero);
HWY_EXPORT(scale);
HWY_EXPORT(round_evenly);
HWY_EXPORT(follow_rounded);
HWY_EXPORT(adamw);

void swiglu(const float* gate, const float* up, float* out, std::size_t n) {
  HWY_DYNAMIC_DISPATCH(swiglu)(gate, up, out, n);
}
void swiglu_backward(const float* gate, const float* up, const float* dy, float* dgate, float* dup,
                     std::size_t n) {
  HWY_DYNAMIC_DISPATCH(swiglu_backward)(gate, up, dy, dgate, dup, n);
}
void rms_norm(const float* x, const float* weight, float eps, float* y, float* scale,
              std::size_t rows, std::size_t width) {
  HWY_DYNAMIC_DISPATCH(rms_norm)(x, weight, eps, y, scale, rows, width);
}
void rms_norm_backward(const float* x, const float* weight, const float* scale, const float* dy,
                       float* dx, float* dweight, std::size_t rows, std::size_t width) {
  HWY_DYNAMIC_DISPATCH(rms_norm_backward)(x, weight, scale, dy, dx, dweight, rows, width);
}
void rotate(const float* x, const float* cosine, const float* sine, float* y, std::size_t rows,
            std::size_t heads, std::size_t half, bool backwards) {
  HWY_DYNAMIC_DISPATCH(rotate)(x, cosine, sine, y, rows, heads, half, backwards);
}
SoftmaxSums softmax(float* scores, std::size_t n) {
  return HWY_DYNAMIC_DISPATCH(softmax)(scores, n);
}
void softmax_again(float* scores, float log_total, std::size_t n) {
  HWY_DYNAMIC_DISPATCH(softmax_again)(scores, log_total, n);
}
void softmax_backward(const float* p, float* dp, float projected, float scale, std::size_t n) {
  HWY_DYNAMIC_DISPATCH(softmax_backward)(p, dp, projected, scale, n);
}
float dot(const float* a, const float* b, std::size_t n) {
  return HWY_DYNAMIC_DISPATCH(dot)(a, b, n);
}
void uniform(std::uint64_t key, std::uint32_t row, float* out, std::size_t n) {
  HWY_DYNAMIC_DISPATCH(uniform)(key, row, out, n);
}
void dropout(std::uint64_t key, std::uint32_t row, const float* x, float p, float scale, float* y,
             std::size_t n) {
  HWY_DYNAMIC_DISPATCH(dropout)(key, row, x, p, scale, y, n);
}
bool is_zero(const float* x, std::size_t n) { return HWY_DYNAMIC_DISPATCH(is_zero)(x, n); }
void scale(float* x, float factor, std::size_t n) { HWY_DYNAMIC_DISPATCH(scale)(x, factor, n); }
void round_evenly(const float* x, std::uint64_t first, std::uint16_t* y, std::size_t n) {
  HWY_DYNAMIC_DISPATCH(round_evenly)(x, first, y, n);
}
void follow_rounded(float* x, std::uint64_t first, const std::uint16_t* y, std::size_t n) {
  HWY_DYNAMIC_DISPATCH(follow_rounded)(x, first, y, n);
}
void adamw(const AdamW& update, const float* gradient, float* parameter, float* first,
           float* second, std::size_t n) {
  HWY_DYNAMIC_DISPATCH(adamw)(update, gradient, parameter, first, second, n);
}

}  // namespace attune::kernels
#endif
