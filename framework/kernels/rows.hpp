// Arithmetic over rows of float32 in one pass each, in the widest vectors that the processor has
// (chosen when the program runs). Plain memory in and out, one thread: who calls shares out the
// rows.
#pragma once
#include <cstddef>
#include <cstdint>

namespace attune::kernels {

/// out = silu(gate) * up, n numbers.
void swiglu(const float* gate, const float* up, float* out, std::size_t n);
/// dgate = dy * up * silu'(gate), dup = dy * silu(gate).
void swiglu_backward(const float* gate, const float* up, const float* dy, float* dgate, float* dup,
                     std::size_t n);

/// y = x * scale * weight for each row of x [rows, width], with scale = 1 / sqrt(mean(x^2) + eps),
/// which is kept: [rows].
void rms_norm(const float* x, const float* weight, float eps, float* y, float* scale,
              std::size_t rows, std::size_t width);
/// dx [rows, width]; dweight [width] is added to. Either may be null: not wanted.
void rms_norm_backward(const float* x, const float* weight, const float* scale, const float* dy,
                       float* dx, float* dweight, std::size_t rows, std::size_t width);

/// x, y [rows, heads, 2 half]: element i is turned with element i + half by the angle whose cosine
/// and sine are row r of cosine and sine [rows, half]; backwards turns the other way.
void rotate(const float* x, const float* cosine, const float* sine, float* y, std::size_t rows,
            std::size_t heads, std::size_t half, bool backwards);

struct SoftmaxSums {
  float log_total;  // logarithm of the sum of exponentials
  float largest;
};
/// scores[0 .. n) become their softmax, n > 0.
SoftmaxSums softmax(float* scores, std::size_t n);
/// The same again from that logarithm: exp(scores - log_total).
void softmax_again(float* scores, float log_total, std::size_t n);
/// A softmax's gradient, in place: dp = p * (dp - projected) * scale, with projected = sum of p *
/// dp.
void softmax_backward(const float* p, float* dp, float projected, float scale, std::size_t n);
float dot(const float* a, const float* b, std::size_t n);
/// Philox 4x32 with 10 rounds (Salmon et al. 2011, doi:10.1145/2063384.2063405). Numbers i = 0 .. n
/// - 1 of a stream's row: word i % 4 of the output for the counter (i / 4, row, 0, 0) under `key`,
/// its upper 24 bits as a float32 in [0, 1).
void uniform(std::uint64_t key, std::uint32_t row, float* out, std::size_t n);
/// y = x * scale where the same number is at least p, else 0.
void dropout(std::uint64_t key, std::uint32_t row, const float* x, float p, float scale, float* y,
             std::size_t n);
bool is_zero(const float* x, std::size_t n);
/// x *= factor.
void scale(float* x, float factor, std::size_t n);

/// One update of AdamW; with the corrections of moments that start at zero: rate = learning rate /
/// (1 - beta1^t), root = 1 / sqrt(1 - beta2^t).
struct AdamW {
  float scale;  // of the gradient
  float keep;   // what the decay leaves of a parameter
  // rest = 1 - beta, not of the rounded beta
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
