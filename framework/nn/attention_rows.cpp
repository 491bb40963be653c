// Attention in float32 on the CPU, within samples that lie end to end: no scores are kept, no
// sample is copied out of the batch, and heads that share keys share the work on them.
#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <algorithm>
#include <atomic>

#include "kernels/rows.hpp"
#include "nn/attention_kernels.hpp"
#include "nn/operations.hpp"

// The Fortran interface of the BLAS that LibTorch brings: in a parallel region each call stays on
// its thread.
extern "C" void sgemm_(const char* transa, const char* transb, const int* m, const int* n,
                       const int* k, const float* alpha, const float* a, const int* lda,
                       const float* b, const int* ldb, const float* beta, float* c, const int* ldc);

namespace attune::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// A matrix in rows, each `stride` numbers after the one before.
struct Rows {
  const float* data;
  std::int64_t stride;
};

/// c [m, n] = alpha a b + beta c, all in rows. a: [m, k], or [k, m] to be transposed; b: [k, n], or
/// [n, k].
void multiply(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, Rows a, bool transpose_a,
              Rows b, bool transpose_b, float beta, float* c, std::int64_t stride_c) {
  // In BLAS's columns c is transposed, and so are the factors' order and forms.
  const int rows = static_cast<int>(n);
  const int columns = static_cast<int>(m);
  const int inner = static_cast<int>(k);
  const int lda = static_cast<int>(b.stride);
  const int ldb = static_cast<int>(a.stride);
  const int ldc = static_cast<int>(stride_c);
  sgemm_(transpose_b ? "T" : "N", transpose_a ? "T" : "N", &rows, &columns, &inner, &alpha, b.data,
         &lda, a.data, &ldb, &beta, c, &ldc);
}

/// Queries taken together: their scores stay in the processor's cache, and what a causal block
/// computes in vain is half a block.
constexpr std::int64_t query_rows = 128;

/// The tensors' sizes, and what part of them one head of one sample is.
struct Geometry {
  std::int64_t heads;
  std::int64_t key_heads;
  std::int64_t width;
  std::vector<std::int64_t> starts;
  bool causal;

  std::int64_t samples() const { return static_cast<std::int64_t>(starts.size()) - 1; }
  std::int64_t group() const { return heads / key_heads; }
  Rows query(const at::Tensor& q, std::int64_t row, std::int64_t head) const {
    return {q.const_data_ptr<float>() + (row * heads + head) * width, heads * width};
  }
  Rows key(const at::Tensor& k, std::int64_t row, std::int64_t head) const {
    return {k.const_data_ptr<float>() + (row * key_heads + head) * width, key_heads * width};
  }

  /// work(first row of the block, its rows, keys that its last row sees) for each block of a
  /// sample's queries.
  template <class Work>
  void for_each_block(std::int64_t sample, Work&& work) const {
    const auto length = starts[sample + 1] - starts[sample];
    for (std::int64_t first = 0; first < length; first += query_rows) {
      const auto rows = std::min(query_rows, length - first);
      work(first, rows, causal ? first + rows : length);
    }
  }
  /// Multiplications and additions of the scores and of the sums by them.
  double products() const {
    double scores = 0;
    for (std::int64_t sample = 0; sample < samples(); ++sample)
      for_each_block(sample, [&](std::int64_t, std::int64_t rows, std::int64_t keys) {
        scores += static_cast<double>(rows * keys);
      });
    return 4 * scores * static_cast<double>(heads * width);
  }
  std::int64_t keys_of(std::int64_t row_in_sample, std::int64_t keys) const {
    return causal ? row_in_sample + 1 : keys;
  }
};

/// Tasks differ in length: each thread takes the next one when it is done. What a task computes
/// does not depend on who does.
template <class Work>
void share_out_tasks(std::int64_t tasks, Work&& work) {
  std::atomic<std::int64_t> next = 0;
  at::parallel_for(0, std::min<std::int64_t>(tasks, at::get_num_threads()), 1,
                   [&](std::int64_t, std::int64_t) {
                     for (auto task = next++; task < tasks; task = next++) work(task);
                   });
}

/// Scores [rows, keys] of a block of queries. Returns where they are, in memory of this thread that
/// grows as needed.
float* scores_of(std::vector<float>& memory, const Rows& q, const Rows& k, std::int64_t rows,
                 std::int64_t keys, std::int64_t width, float scale) {
  memory.resize(std::max(memory.size(), static_cast<std::size_t>(rows * keys)));
  multiply(rows, keys, width, scale, q, false, k, true, 0, memory.data(), keys);
  return memory.data();
}

/// Dao 2023 (arXiv:2307.08691), section 3: the output and, for each query, the logarithm of its
/// scores' sum of exponentials; the backward pass makes the scores again from those.
struct FusedAttention : torch::autograd::Function<FusedAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_, const at::Tensor& k_,
                            const at::Tensor& v_, const std::vector<std::int64_t>& starts,
                            double scale, bool causal) {
    const at::Tensor q = q_.contiguous();
    const at::Tensor k = k_.contiguous();
    const at::Tensor v = v_.contiguous();
    const Geometry g{q.size(1), k.size(1), q.size(2), starts, causal};
    const at::Tensor out = at::empty_like(q);
    const at::Tensor log_sums = at::empty({q.size(0), g.heads}, q.options());
    if (q.is_meta())
      add_products(g.products());
    else
      share_out_tasks(g.samples() * g.heads, [&](std::int64_t task) {
        attend(g, task / g.heads, task % g.heads, q, k, v, static_cast<float>(scale), out,
               log_sums);
      });
    context->save_for_backward({q, k, v, out, log_sums});
    context->saved_data["starts"] = starts;
    context->saved_data["scale"] = scale;
    context->saved_data["causal"] = causal;
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto& q = saved[0];
    const auto& k = saved[1];
    const Geometry g{q.size(1), k.size(1), q.size(2), context->saved_data["starts"].toIntVector(),
                     context->saved_data["causal"].toBool()};
    const auto scale = static_cast<float>(context->saved_data["scale"].toDouble());
    const Gradients d{gradients[0].contiguous(), at::empty_like(q), at::zeros_like(k),
                      at::zeros_like(saved[2])};
    if (q.is_meta())
      add_products(2.5 * g.products());  // five products of matrices to two
    else
      share_out_tasks(g.samples() * g.key_heads, [&](std::int64_t task) {
        for (std::int64_t i = 0; i < g.group(); ++i)
          go_back(g, task / g.key_heads, task % g.key_heads * g.group() + i, saved, scale, d);
      });
    return {d.q, d.k, d.v, {}, {}, {}};
  }

 private:
  struct Gradients {
    at::Tensor out;
    at::Tensor q;
    at::Tensor k;
    at::Tensor v;
  };

  static void attend(const Geometry& g, std::int64_t sample, std::int64_t head, const at::Tensor& q,
                     const at::Tensor& k, const at::Tensor& v, float scale, const at::Tensor& out,
                     const at::Tensor& log_sums) {
    static thread_local std::vector<float> memory;
    const auto start = g.starts[sample];
    const auto key_head = head / g.group();
    g.for_each_block(sample, [&](std::int64_t first, std::int64_t rows, std::int64_t keys) {
      float* p = scores_of(memory, g.query(q, start + first, head), g.key(k, start, key_head), rows,
                           keys, g.width, scale);
      for (std::int64_t row = 0; row < rows; ++row) {
        const auto seen = g.keys_of(first + row, keys);
        log_sums.data_ptr<float>()[(start + first + row) * g.heads + head] =
            kernels::softmax(p + row * keys, static_cast<std::size_t>(seen)).log_total;
        std::fill(p + row * keys + seen, p + (row + 1) * keys, 0.0f);
      }
      multiply(rows, g.width, keys, 1, {p, keys}, false, g.key(v, start, key_head), false, 0,
               out.data_ptr<float>() + ((start + first) * g.heads + head) * g.width,
               g.heads * g.width);
    });
  }

  /// With p the softmax and o its product with v: dv = p^T do, dp = do v^T, ds = p (dp - do . o)
  /// scale, dq = ds k, dk = ds^T q.
  static void go_back(const Geometry& g, std::int64_t sample, std::int64_t head,
                      const variable_list& saved, float scale, const Gradients& d) {
    static thread_local std::vector<float> memory;
    static thread_local std::vector<float> other;
    const auto& q = saved[0];
    const auto& k = saved[1];
    const auto& v = saved[2];
    const auto& out = saved[3];
    const auto& log_sums = saved[4];
    const auto start = g.starts[sample];
    const auto key_head = head / g.group();
    const auto key_stride = g.key_heads * g.width;
    const auto query_stride = g.heads * g.width;
    const auto key_place = (start * g.key_heads + key_head) * g.width;
    g.for_each_block(sample, [&](std::int64_t first, std::int64_t rows, std::int64_t keys) {
      const auto top = start + first;
      const auto place = (top * g.heads + head) * g.width;
      const Rows dout = g.query(d.out, top, head);
      const Rows o = g.query(out, top, head);
      float* p = scores_of(memory, g.query(q, top, head), g.key(k, start, key_head), rows, keys,
                           g.width, scale);
      float* dp = scores_of(other, dout, g.key(v, start, key_head), rows, keys, g.width, 1);
      for (std::int64_t row = 0; row < rows; ++row) {
        const auto seen = static_cast<std::size_t>(g.keys_of(first + row, keys));
        float* p_row = p + row * keys;
        float* dp_row = dp + row * keys;
        kernels::softmax_again(
            p_row, log_sums.const_data_ptr<float>()[(top + row) * g.heads + head], seen);
        const float projected =
            kernels::dot(dout.data + row * query_stride, o.data + row * query_stride,
                         static_cast<std::size_t>(g.width));
        kernels::softmax_backward(p_row, dp_row, projected, scale, seen);
        std::fill(p_row + seen, p_row + keys, 0.0f);
        std::fill(dp_row + seen, dp_row + keys, 0.0f);
      }
      multiply(keys, g.width, rows, 1, {p, keys}, true, dout, false, 1,
               d.v.data_ptr<float>() + key_place, key_stride);
      multiply(rows, g.width, keys, 1, {dp, keys}, false, g.key(k, start, key_head), false, 0,
               d.q.data_ptr<float>() + place, query_stride);
      multiply(keys, g.width, rows, 1, {dp, keys}, true, g.query(q, top, head), false, 1,
               d.k.data_ptr<float>() + key_place, key_stride);
    });
  }
};

}  // namespace

bool is_float_on_cpu(const at::Tensor& x) { return is_near(x) && x.scalar_type() == at::kFloat; }

bool rows_serve(const PackedAttention& call) {
  return is_float_on_cpu(call.q) && is_float_on_cpu(call.k) && is_float_on_cpu(call.v) &&
         call.options.softcap == 0 && !call.is_windowed() && !call.has_more_keys();
}

at::Tensor attend_by_rows(const PackedAttention& call) {
  return FusedAttention::apply(call.q, call.k, call.v, call.starts, call.options.scale,
                               call.options.causal);
}

/// Queries of samples end to end, each against its own keys and values, of which the last are the
/// queries'. No gradients.
at::Tensor attend_to_seen(const at::Tensor& q, const std::vector<KeysValues>& seen,
                          const std::vector<std::int64_t>& starts,
                          const AttentionOptions& options) {
  const auto heads = q.size(1);
  const auto width = q.size(2);
  const at::Tensor out = at::empty_like(q);
  share_out_tasks(std::ssize(seen) * heads, [&](std::int64_t task) {
    static thread_local std::vector<float> memory;
    const auto sample = static_cast<std::size_t>(task / heads);
    const auto& [k, v] = seen[sample];
    const auto head = task % heads;
    const auto key_heads = k.size(1);
    const auto key_place = head / (heads / key_heads) * width;
    const auto key_stride = key_heads * width;
    const auto length = starts[sample + 1] - starts[sample];
    const auto before = k.size(0) - length;
    for (std::int64_t first = 0; first < length; first += query_rows) {
      const auto rows = std::min(query_rows, length - first);
      const auto keys = options.causal ? before + first + rows : k.size(0);
      const auto place = ((starts[sample] + first) * heads + head) * width;
      float* p = scores_of(memory, {q.const_data_ptr<float>() + place, heads * width},
                           {k.const_data_ptr<float>() + key_place, key_stride}, rows, keys, width,
                           static_cast<float>(options.scale));
      for (std::int64_t row = 0; row < rows; ++row) {
        float* scores = p + row * keys;
        const auto end = options.causal ? before + first + row + 1 : keys;
        const auto begin = options.window > 0 ? std::max<std::int64_t>(0, end - options.window) : 0;
        kernels::softmax(scores + begin, static_cast<std::size_t>(end - begin));
        std::fill(scores, scores + begin, 0.0f);
        std::fill(scores + end, scores + keys, 0.0f);
      }
      multiply(rows, width, keys, 1, {p, keys}, false,
               {v.const_data_ptr<float>() + key_place, key_stride}, false, 0,
               out.data_ptr<float>() + place, heads * width);
    }
  });
  return out;
}

}  // namespace attune::nn
