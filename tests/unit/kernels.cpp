// What float32 on the CPU computes with our own kernels against the plain form in float64, values
// and gradients.
#include <attune/nn.hpp>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "kernels/rows.hpp"

namespace {

using namespace attune;

at::Tensor narrow_leaf(at::IntArrayRef shape) { return torch::randn(shape).requires_grad_(true); }
at::Tensor wide_leaf(const at::Tensor& x) {
  return x.detach().to(at::kDouble).requires_grad_(true);
}

/// Relative to the largest value.
double difference(const at::Tensor& a, const at::Tensor& b) {
  return ((a.to(at::kDouble) - b).abs().max() / b.abs().max().clamp_min(1e-30)).item<double>();
}

using Form = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

/// The same function of the same numbers in both precisions, and the gradients of a weighted sum of
/// its values.
void expect_same(const Form& form, const Form& plain, const std::vector<at::Tensor>& narrow,
                 double tolerance = 2e-6) {
  std::vector<at::Tensor> wide;
  for (const auto& x : narrow) wide.push_back(wide_leaf(x));
  const at::Tensor y = form(narrow);
  const at::Tensor expected = plain(wide);
  EXPECT_LT(difference(y, expected), tolerance);
  const at::Tensor weights = torch::randn(y.sizes());
  const auto gradients = torch::autograd::grad({(y * weights).sum()}, narrow);
  const auto wanted = torch::autograd::grad({(expected * weights.to(at::kDouble)).sum()}, wide);
  for (std::size_t i = 0; i < narrow.size(); ++i)
    EXPECT_LT(difference(gradients[i], wanted[i]), tolerance) << "gradient " << i;
}

TEST(kernels, rms_norm_is_the_plain_form_for_any_width) {
  torch::manual_seed(1);
  for (const std::int64_t width : {1, 7, 64, 577}) {
    const auto plain = [](const std::vector<at::Tensor>& x) {
      return x[0] * (x[0].square().mean(-1, true) + 1e-5).rsqrt() * x[1];
    };
    const auto ours = [&](const std::vector<at::Tensor>& x) {
      nn::RMSNorm norm(width, 1e-5);
      norm.weight = x[1];
      return norm.forward(x[0]);
    };
    expect_same(ours, plain, {narrow_leaf({130, 3, width}), narrow_leaf({width})});
  }
}

TEST(kernels, swiglu_is_the_plain_form_also_far_from_zero) {
  torch::manual_seed(2);
  at::Tensor gate = torch::randn({33, 37}) * 40;
  const auto plain = [](const std::vector<at::Tensor>& x) {
    return x[0] * at::sigmoid(x[0]) * x[1];
  };
  expect_same([](const auto& x) { return nn::swiglu(x[0], x[1]); }, plain,
              {gate.requires_grad_(true), narrow_leaf({33, 37})});
}

TEST(kernels, swiglu_of_very_large_numbers_stays_finite) {
  const at::Tensor gate = torch::tensor({-1e8f, -200.0f, 200.0f, 1e30f});
  const at::Tensor up = torch::ones({4});
  EXPECT_TRUE(
      at::allclose(nn::swiglu(gate, up), torch::tensor({0.0f, 0.0f, 200.0f, 1e30f}), 1e-6, 1e-20));
}

TEST(kernels, rotation_is_the_plain_form_and_its_gradient_turns_back) {
  torch::manual_seed(3);
  for (const std::int64_t half : {1, 5, 32}) {
    const at::Tensor angles = torch::randn({11, half}, at::kDouble);
    const auto turned = [&](const at::Tensor& x, const at::Tensor& angle) {
      const at::Tensor c = angle.cos().unsqueeze(1);
      const at::Tensor s = angle.sin().unsqueeze(1);
      const at::Tensor a = x.narrow(2, 0, half);
      const at::Tensor b = x.narrow(2, half, half);
      return at::cat({a * c - b * s, b * c + a * s}, 2);
    };
    expect_same(
        [&](const auto& x) {
          return nn::rotate(x[0], {angles.cos().to(at::kFloat), angles.sin().to(at::kFloat)});
        },
        [&](const auto& x) { return turned(x[0], angles); }, {narrow_leaf({11, 3, 2 * half})});
  }
}

struct AttentionCase {
  std::int64_t heads;
  std::int64_t key_heads;
  std::int64_t width;
  bool causal;
  std::vector<std::int64_t> lengths;
};

class FusedAttention : public testing::TestWithParam<AttentionCase> {};

TEST_P(FusedAttention, is_the_plain_form_within_each_sample) {
  torch::manual_seed(4);
  const auto& [heads, key_heads, width, causal, lengths] = GetParam();
  Batch batch;
  for (const auto length : lengths) batch.starts.push_back(batch.starts.back() + length);
  const auto total = batch.length();
  const double scale = 1 / std::sqrt(static_cast<double>(width));
  const auto plain = [&, heads = heads, key_heads = key_heads,
                      causal = causal](const std::vector<at::Tensor>& x) {
    std::vector<at::Tensor> parts;
    for (std::int64_t sample = 0; sample < batch.samples(); ++sample) {
      const auto part = [&](const at::Tensor& y, std::int64_t repeats) {
        return y.slice(0, batch.starts[sample], batch.starts[sample + 1])
            .repeat_interleave(repeats, 1)
            .transpose(0, 1);
      };
      at::Tensor scores =
          part(x[0], 1).matmul(part(x[1], heads / key_heads).transpose(1, 2)) * scale;
      if (causal)
        scores = scores.masked_fill(at::ones_like(scores).to(at::kBool).triu(1),
                                    -std::numeric_limits<double>::infinity());
      parts.push_back(scores.softmax(-1).matmul(part(x[2], heads / key_heads)).transpose(0, 1));
    }
    return at::cat(parts);
  };
  const auto ours = [&, causal = causal](const std::vector<at::Tensor>& x) {
    return nn::attention(x[0], x[1], x[2], batch, {.scale = scale, .causal = causal});
  };
  expect_same(ours, plain,
              {narrow_leaf({total, heads, width}), narrow_leaf({total, key_heads, width}),
               narrow_leaf({total, key_heads, width})},
              5e-6);
}

INSTANTIATE_TEST_SUITE_P(shapes, FusedAttention,
                         testing::Values(AttentionCase{1, 1, 4, true, {1}},
                                         AttentionCase{9, 3, 64, true, {256, 1, 129, 300}},
                                         AttentionCase{4, 4, 32, false, {5, 128, 31, 200}},
                                         AttentionCase{6, 2, 17, true, {127, 128, 129}},
                                         AttentionCase{2, 1, 8, false, {3, 3}}));

TEST(FusedAttention, gives_the_same_bits_on_any_number_of_threads) {
  torch::manual_seed(5);
  Batch batch;
  batch.starts = {0, 140, 150, 299};
  const at::Tensor q = narrow_leaf({299, 6, 16});
  const at::Tensor k = narrow_leaf({299, 2, 16});
  const at::Tensor v = narrow_leaf({299, 2, 16});
  const auto all = [&] {
    const at::Tensor y = nn::attention(q, k, v, batch, {.scale = 0.25});
    auto parts = torch::autograd::grad({y.square().sum()}, {q, k, v});
    parts.push_back(y.detach());
    return parts;
  };
  const auto threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = all();
  at::set_num_threads(3);
  const auto three = all();
  at::set_num_threads(threads);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(one[i].equal(three[i])) << i;
}

TEST(kernels, softmax_is_found_again_from_its_logarithm) {
  for (const std::size_t n : {1u, 15u, 16u, 100u}) {
    std::vector<float> scores(n);
    std::vector<float> again;
    for (std::size_t i = 0; i < n; ++i) scores[i] = static_cast<float>(i % 7) * 9 - 30;
    again = scores;
    const float log_total = kernels::softmax(scores.data(), n).log_total;
    kernels::softmax_again(again.data(), log_total, n);
    float total = 0;
    for (std::size_t i = 0; i < n; ++i) {
      total += scores[i];
      EXPECT_NEAR(scores[i], again[i], 1e-6);
    }
    EXPECT_NEAR(total, 1, 1e-6);
  }
}

}  // namespace
