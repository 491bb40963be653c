// float32 row kernels, each a single pass over memory, with the widest vector instructions of the
// processor (selected at run time). Raw pointers, single-threaded: the caller distributes rows over
// threads.
#pragma once
#include <cstddef>
#include <cstdint>

namespace attune::kernels {

/// out = silu(gate) * up, n elements.
void swiglu(const float* gate, const float* up, float* out, std::size_t n);
/// dgate = dy * up * silu'(gate), dup = dy * silu(gate).
void swiglu_backward(const float* gate, const float* up, const float* dy, float* dgate, float* dup,
                     std::size_t n);

/// y = x * scale * weight for each row of x [rows, width], with scale = 1 / sqrt(mean(x^2) + eps),
/// which is stored: [rows].
void rms_norm(const float* x, const float* weight, float eps, float* y, float* scale,
              std::size_t rows, std::size_t width);
/// Computes dx [rows, width] and adds to dweight [width]. Either may be null to skip it.
void rms_norm_backward(const float* x, const float* weight, const float* scale, const float* dy,
                       float* dx, float* dweight, std::size_t rows, std::size_t width);

/// x, y: [rows, heads, 2 half]. Rotates elements (i, i + half) by the angle whose cosine and sine
/// are in row r of cosine and sine [rows, half]; `backwards` rotates in the opposite direction.
void rotate(const float* x, const float* cosine, const float* sine, float* y, std::size_t rows,
            std::size_t heads, std::size_t half, bool backwards);

struct SoftmaxSums {
  float log_total;  // logarithm of the sum of exponentials
  float largest;
};
/// Replaces scores[0 .. n) by their softmax; n > 0.
SoftmaxSums softmax(float* scores, std::size_t n);
/// Recomputes the softmax from log_total: exp(scores - log_total).
void softmax_again(float* scores, float log_total, std::size_t n);
/// Softmax gradient, in place: dp = p * (dp - projected) * scale, with projected = sum(p * dp).
void softmax_backward(const float* p, float* dp, float projected, float scale, std::size_t n);
float dot(const float* a, const float* b, std::size_t n);
/// Philox 4x32 with 10 rounds (Salmon et al. 2011, doi:10.1145/2063384.2063405). Element i = 0 .. n
/// - 1 is word i % 4 of the output for counter (i / 4, row, 0, 0) and `key`; its upper 24 bits give
/// a float32 in [0, 1).
void uniform(std::uint64_t key, std::uint32_t row, float* out, std::size_t n);
/// y = x * scale where the element of uniform() is at least p, otherwise 0.
void dropout(std::uint64_t key, std::uint32_t row, const float* x, float p, float scale, float* y,
             std::size_t n);
bool is_zero(const float* x, std::size_t n);
/// x *= factor.
void scale(float* x, float factor, std::size_t n);

/// times 2^-16: the golden ratio's conjugate.
constexpr std::uint32_t golden_ratio = 40503;
/// y = x in bfloat16, rounded away from zero where the bits that are dropped and the threshold of
/// the element come to 2^16 or more. The threshold of element i is the low 16 bits of (first + i)
/// golden_ratio. NaN stays NaN.
void round_evenly(const float* x, std::uint64_t first, std::uint16_t* y, std::size_t n);
/// x = y where round_evenly() of x is not y.
void follow_rounded(float* x, std::uint64_t first, const std::uint16_t* y, std::size_t n);

/// Constants of one AdamW update, with bias correction: rate = learning rate / (1 - beta1^t), root
/// = 1 / sqrt(1 - beta2^t).
struct AdamW {
  float scale;  // of the gradient
  float keep;   // factor on the parameter after weight decay
  // rest = 1 - beta, computed before rounding beta
  float beta1;
  float beta2;
  float rest1;
  float rest2;
  float rate;
  float root;
  float epsilon;
};
/// g = scale gradient, first = beta1 first + (1 - beta1) g, second = beta2 second + (1 - beta2)
/// g^2, parameter = keep parameter - rate first / (root sqrt(second) + epsilon).
void adamw(const AdamW& update, const float* gradient, float* parameter, float* first,
           float* second, std::size_t n);

}  // namespace attune::kernels
