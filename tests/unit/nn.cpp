// Building blocks and the loss against LibTorch's plain forms.
#include <attune/error.hpp>
#include <attune/loss.hpp>
#include <attune/model.hpp>
#include <attune/device.hpp>
#include <attune/nn.hpp>
#include <attune/parameter.hpp>
#include <gmock/gmock.h>
#include <torch/torch.h>

#include <nlohmann/json.hpp>

#include <bit>
#include <cmath>

#include "errors.hpp"
#include "nn/rounding.hpp"

namespace {

using namespace attune;

ForwardContext alone;  // a layer by itself
using testing::HasSubstr;

const auto float64 = at::TensorOptions().dtype(at::kDouble);

double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

at::Tensor random_leaf(at::IntArrayRef shape) {
  return torch::randn(shape, float64).requires_grad_(true);
}

/// A projection in float64 with random weights.
std::shared_ptr<nn::Linear> projection_of(std::int64_t width, std::int64_t outputs,
                                          bool with_bias) {
  auto projection = std::make_shared<nn::Linear>(width, outputs, with_bias);
  projection->to(at::kDouble);
  const torch::NoGradGuard no_grad;
  for (auto& parameter : projection->parameters()) parameter.normal_();
  return projection;
}

/// y + x U V
struct Product final : nn::Delta {
  Product(std::int64_t in, std::int64_t out) {
    u = register_parameter("u", torch::randn({in, 2}, float64));
    v = register_parameter("v", torch::randn({2, out}, float64));
  }
  at::Tensor forward(const nn::Linear&, const at::Tensor& x, const at::Tensor& y,
                     ForwardContext&) override {
    return y + x.mm(u).mm(v);
  }
  void merge(nn::Linear& base) const override { base.weight.add_(u.mm(v).t()); }
  at::Tensor u;
  at::Tensor v;
};

struct LossCase {
  std::int64_t rows;
  bool bias;
  bool with_ignored;
};

TEST(parameters, are_made_in_their_dtype) {
  {
    const attune::nn::ParametersOn in(at::kCPU, at::kBFloat16);
    EXPECT_EQ(attune::nn::new_parameter({3}).scalar_type(), at::kBFloat16);
    const attune::nn::ParametersOn nowhere(at::kMeta);
    EXPECT_EQ(attune::nn::new_parameter({3}).scalar_type(), at::kFloat);
    EXPECT_TRUE(attune::nn::new_parameter({3}).is_meta());
  }
  EXPECT_EQ(attune::nn::new_parameter({3}).scalar_type(), at::kFloat);
  EXPECT_TRUE(attune::nn::ParametersOn::now().is_cpu());
}

TEST(parameters, drawn_in_16_bits_are_the_rounded_ones_of_float32) {
  const auto drawn = [](at::ScalarType type) {
    torch::manual_seed(8);
    return attune::drawn_on_host(at::empty({100}, type),
                                 [](at::Tensor& values) { values.normal_(0, 0.02); });
  };
  EXPECT_TRUE(drawn(at::kBFloat16).equal(drawn(at::kFloat).to(at::kBFloat16)));
}

TEST(product, of_rounded_operands_is_added_up_in_float32) {
  torch::manual_seed(8);
  for (const auto& [m, k, n] :
       {std::tuple(5, 300, 7), std::tuple(1, 9, 4), std::tuple(64, 1, 3), std::tuple(130, 70, 1)}) {
    const at::Tensor a = torch::randn({m, k}).to(at::kBFloat16);
    const at::Tensor b = torch::randn({k, n}).to(at::kBFloat16);
    const at::Tensor exact = a.to(at::kDouble).mm(b.to(at::kDouble));
    for (const auto& left : {a, a.t().contiguous().t(), at::cat({a, a}, 1).narrow(1, 0, k)})
      for (const auto& right : {b, b.t().contiguous().t()}) {
        const at::Tensor c = nn::product(left, right);
        EXPECT_EQ(c.scalar_type(), at::kFloat);
        EXPECT_LT(difference(c.to(at::kDouble), exact), 1e-4) << m << " x " << k << " x " << n;
        const at::Tensor sum = torch::randn({m, n});
        const at::Tensor before = sum.clone();
        nn::add_product(sum, left, right, 0.5, 2);
        EXPECT_LT(difference(sum.to(at::kDouble), 2 * before.to(at::kDouble) + 0.5 * exact), 1e-4);
      }
  }
  const at::Tensor garbage = at::full({5, 7}, std::nan(""));
  const at::Tensor a = torch::randn({5, 3});
  const at::Tensor b = torch::randn({3, 7});
  nn::add_product(garbage, a, b, 1, 0);
  EXPECT_TRUE(garbage.equal(a.mm(b)));
}

TEST(linear, with_rounded_operands_has_the_gradients_of_the_rounded_product) {
  torch::manual_seed(9);
  const auto rounded = [](const at::Tensor& t) {
    return t.detach().to(at::kBFloat16).to(at::kDouble);
  };
  for (const bool frozen : {false, true}) {
    nn::Linear linear(6, 4, true);
    for (auto& parameter : linear.parameters())
      parameter.set_requires_grad(false).normal_().set_requires_grad(!frozen);
    linear.rounds_operands = true;
    const at::Tensor x = torch::randn({2, 5, 6}).requires_grad_(true);
    const at::Tensor dy = torch::randn({2, 5, 4});
    const at::Tensor y = linear.forward(x, alone);
    const at::Tensor operand = linear.operand();
    EXPECT_TRUE(operand.equal(nn::rounded_evenly(linear.weight.detach())));
    const at::Tensor weight = operand.to(at::kDouble);
    const at::Tensor exact = at::linear(rounded(x), weight, linear.bias.detach().to(at::kDouble));
    EXPECT_LT(difference(y.to(at::kDouble), exact), 1e-5);
    y.backward(dy);
    EXPECT_LT(difference(x.grad().to(at::kDouble), at::matmul(rounded(dy), weight)), 1e-5);
    EXPECT_EQ(linear.weight.grad().defined(), !frozen);
    if (frozen) continue;
    EXPECT_LT(difference(linear.weight.grad().to(at::kDouble),
                         rounded(dy).flatten(0, 1).t().mm(rounded(x).flatten(0, 1))),
              1e-4);
    EXPECT_LT(difference(linear.bias.grad(), dy.sum(at::IntArrayRef{0, 1})), 1e-5);
  }
}

TEST(linear, rounds_a_frozen_weight_again_when_it_has_changed) {
  nn::Linear linear(3, 2, false);
  linear.weight.set_requires_grad(false).fill_(1);
  linear.rounds_operands = true;
  const torch::NoGradGuard no_grad;
  EXPECT_EQ(linear.forward(at::ones({1, 3}), alone)[0][0].item<float>(), 3);
  EXPECT_TRUE(linear.operand().is_same(linear.operand()));
  linear.weight.fill_(2);
  EXPECT_EQ(linear.forward(at::ones({1, 3}), alone)[0][0].item<float>(), 6);
}

TEST(cross_entropy, with_rounded_operands_is_near_the_exact_one_and_keeps_logits_in_float32) {
  torch::manual_seed(10);
  nn::Linear projection(8, 300, true);
  for (auto& parameter : projection.parameters())
    parameter.set_requires_grad(false).normal_().set_requires_grad(true);
  const at::Tensor x = torch::randn({600, 8});
  const at::Tensor targets = torch::randint(300, {600}, at::kLong);
  const auto with = [&](bool rounds, bool by_rows) {
    projection.rounds_operands = rounds;
    projection.zero_grad();
    const at::Tensor leaf = x.clone().requires_grad_(true);
    const at::Tensor sum = by_rows ? row_losses(leaf, projection, targets).nll.sum()
                                   : cross_entropy(leaf, projection, targets).sum;
    sum.backward();
    return std::vector{sum.detach(), leaf.grad(), projection.weight.grad().clone(),
                       projection.bias.grad().clone()};
  };
  const auto exact = with(false, false);
  for (const bool by_rows : {false, true}) {
    const auto near = with(true, by_rows);
    for (std::size_t i = 0; i < exact.size(); ++i) {
      EXPECT_EQ(near[i].scalar_type(), at::kFloat);
      EXPECT_LT(difference(near[i], exact[i]), 0.02 * exact[i].abs().max().item<double>()) << i;
      EXPECT_GT(difference(near[i], exact[i]), 0) << i;
    }
  }
}

TEST(row_losses, weighted_and_summed_have_the_value_and_gradients_of_the_plain_form) {
  torch::manual_seed(4);
  for (const bool with_bias : {false, true}) {
    const auto projection = projection_of(6, 11, with_bias);
    const at::Tensor x = random_leaf({600, 6});
    const at::Tensor weights = torch::randn({599}, float64);
    const at::Tensor others = torch::randn({599}, float64);
    at::Tensor targets = torch::randint(11, {600}, at::kLong);
    targets[7] = ignored_target;
    const auto losses = row_losses(x, *projection, targets);
    const auto rows = at::nonzero(targets != ignored_target).squeeze(1);
    ASSERT_TRUE(losses.rows.equal(rows));
    const auto logs = projection->forward(x.index_select(0, rows), alone).log_softmax(1);
    const auto nll = -logs.gather(1, losses.targets.unsqueeze(1)).squeeze(1);
    const auto uniform = -logs.mean(1);
    EXPECT_LT(difference(losses.nll, nll), 1e-10);
    EXPECT_LT(difference(losses.uniform, uniform), 1e-10);
    EXPECT_EQ(losses.correct.item<std::int64_t>(),
              logs.argmax(1).eq(losses.targets).sum().item<std::int64_t>());
    auto parameters = projection->parameters();
    parameters.push_back(x);
    const auto gradients =
        torch::autograd::grad({(losses.nll * weights + losses.uniform * others).sum()}, parameters);
    const auto expected =
        torch::autograd::grad({(nll * weights + uniform * others).sum()}, parameters);
    for (std::size_t i = 0; i < parameters.size(); ++i)
      EXPECT_LT(difference(gradients[i], expected[i]), 1e-9) << i;
  }
}

class CrossEntropy : public testing::TestWithParam<LossCase> {};

TEST_P(CrossEntropy, has_the_value_and_gradients_of_the_plain_form) {
  torch::manual_seed(1);
  const auto [rows, bias, with_ignored] = GetParam();
  const auto projection = projection_of(8, 11, bias);
  const at::Tensor x = random_leaf({rows, 8});
  at::Tensor targets = torch::randint(11, {rows}, at::kLong);
  if (with_ignored) targets.slice(0, 0, rows, 3).fill_(ignored_target);

  const auto logits = projection->forward(x, alone);
  const auto expected =
      at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum, ignored_target);
  std::vector<at::Tensor> leaves = {x};
  for (auto& parameter : projection->parameters()) leaves.push_back(parameter);
  const auto expected_gradients = torch::autograd::grad({expected * 0.3}, leaves);
  const auto loss = cross_entropy(x, *projection, targets);
  const auto gradients = torch::autograd::grad({loss.sum * 0.3}, leaves);

  EXPECT_LT(difference(loss.sum, expected), 1e-9);
  EXPECT_EQ(loss.count, (targets != ignored_target).sum().item<std::int64_t>());
  EXPECT_EQ(loss.correct.item<std::int64_t>(),
            (logits.argmax(1) == targets).sum().item<std::int64_t>());
  for (std::size_t i = 0; i < leaves.size(); ++i)
    EXPECT_LT(difference(gradients[i], expected_gradients[i]), 1e-10) << i;
}

INSTANTIATE_TEST_SUITE_P(around_chunks, CrossEntropy,
                         testing::Values(LossCase{1, false, false}, LossCase{511, false, true},
                                         LossCase{512, true, false}, LossCase{513, true, true},
                                         LossCase{1100, false, true}));

TEST(cross_entropy, of_targets_that_are_all_ignored_is_zero_with_zero_gradients) {
  const auto projection = projection_of(4, 5, false);
  const at::Tensor x = random_leaf({3, 4});

  const auto loss = cross_entropy(x, *projection, at::full({3}, ignored_target, at::kLong));
  loss.sum.backward();

  EXPECT_EQ(loss.count, 0);
  EXPECT_EQ(loss.sum.item<double>(), 0);
  EXPECT_EQ(x.grad().abs().sum().item<double>(), 0);
  EXPECT_EQ(projection->weight.grad().abs().sum().item<double>(), 0);
}

TEST(cross_entropy, adds_the_gradients_of_a_weight_that_the_embedding_shares) {
  const at::Tensor shared = random_leaf({7, 4});
  nn::Linear projection(shared);
  const at::Tensor ids = torch::tensor({1, 5, 2}, at::kLong);
  const at::Tensor targets = torch::tensor({5, 2, 6}, at::kLong);
  const auto features = [&] { return at::embedding(shared, ids).tanh(); };

  const auto expected = torch::autograd::grad(
      {at::cross_entropy_loss(features().mm(shared.t()), targets, {}, at::Reduction::Sum)},
      {shared});
  const auto gradient =
      torch::autograd::grad({cross_entropy(features(), projection, targets).sum}, {shared});

  EXPECT_LT(difference(gradient[0], expected[0]), 1e-10);
}

TEST(cross_entropy, of_a_projection_with_deltas_trains_the_deltas) {
  const auto projection = projection_of(8, 11, false);
  const auto delta = std::make_shared<Product>(8, 11);
  projection->add_delta("delta", delta);
  const at::Tensor x = random_leaf({300, 8});
  const at::Tensor targets = torch::randint(11, {300}, at::kLong);

  const auto expected =
      at::cross_entropy_loss(projection->forward(x, alone), targets, {}, at::Reduction::Sum);
  const auto expected_gradient = torch::autograd::grad({expected}, {delta->u});
  const auto loss = cross_entropy(x, *projection, targets);
  const auto gradient = torch::autograd::grad({loss.sum}, {delta->u});

  EXPECT_LT(difference(loss.sum, expected), 1e-9);
  EXPECT_LT(difference(gradient[0], expected_gradient[0]), 1e-9);
}

TEST(cross_entropy, in_bfloat16_is_summed_in_float32) {
  torch::manual_seed(3);
  nn::Linear projection(torch::randn({50, 16}).to(at::kBFloat16).requires_grad_(true));
  const at::Tensor x = torch::randn({400, 16}).to(at::kBFloat16).requires_grad_(true);
  const at::Tensor targets = torch::randint(50, {400}, at::kLong);

  const auto loss = cross_entropy(x, projection, targets);
  const auto gradients = torch::autograd::grad({loss.sum}, {x, projection.weight});

  const at::Tensor wide_x = x.detach().to(at::kFloat).requires_grad_(true);
  const at::Tensor wide_weight = projection.weight.detach().to(at::kFloat).requires_grad_(true);
  const auto expected =
      at::cross_entropy_loss(wide_x.mm(wide_weight.t()), targets, {}, at::Reduction::Sum);
  const auto expected_gradients = torch::autograd::grad({expected}, {wide_x, wide_weight});
  EXPECT_EQ(loss.sum.scalar_type(), at::kFloat);
  EXPECT_LT(difference(loss.sum, expected) / expected.item<double>(), 1e-3);
  EXPECT_LT(difference(gradients[0].to(at::kFloat), expected_gradients[0]), 0.05);
  EXPECT_LT((gradients[1].to(at::kFloat) - expected_gradients[1]).norm().item<double>() /
                expected_gradients[1].norm().item<double>(),
            0.01);
}

TEST(binary_cross_entropy, is_the_sum_over_every_label_of_every_sample) {
  const auto projection = projection_of(4, 3, true);
  const auto x = random_leaf({5, 4});
  const auto targets = (torch::rand({5, 3}) > 0.5).to(at::kFloat);
  const auto logits = projection->forward(x, alone);
  const auto p = logits.sigmoid();
  const auto y = targets.to(at::kDouble);
  const auto expected = -(y * p.log() + (1 - y) * (1 - p).log()).sum();

  const auto loss = supervised_loss(x, *projection, targets);

  EXPECT_LT(difference(loss.sum, expected), 1e-12);
  EXPECT_EQ(loss.count, 15);
  EXPECT_EQ(loss.correct.item<std::int64_t>(), ((p > 0.5) == (y > 0.5)).sum().item<std::int64_t>());
  EXPECT_LT(difference(loss.outputs, p), 1e-12);
  EXPECT_LT(difference(torch::autograd::grad({loss.sum}, {x})[0],
                       torch::autograd::grad({expected}, {x})[0]),
            1e-12);
}

TEST(squared_error, is_the_sum_of_squares) {
  const auto projection = projection_of(4, 1, true);
  const auto x = random_leaf({3, 4});
  const auto targets = torch::tensor({1.f, -2.f, 0.5f});
  const auto expected = (projection->forward(x, alone).squeeze(1) - targets).square().sum();

  const auto loss = supervised_loss(x, *projection, targets);

  EXPECT_LT(difference(loss.sum, expected), 1e-12);
  EXPECT_EQ(loss.count, 3);
  EXPECT_FALSE(loss.correct.defined());
  EXPECT_EQ(loss.outputs.sizes(), targets.sizes());
}

TEST(supervised_loss, refuses_targets_that_need_other_outputs) {
  const auto projection = projection_of(4, 3, true);
  const auto x = torch::randn({2, 4}, float64);
  EXPECT_THAT(error_of([&] { supervised_loss(x, *projection, torch::zeros({2})); }),
              HasSubstr("needs 1 outputs, but the model has 3"));
  EXPECT_THAT(error_of([&] { supervised_loss(x, *projection, torch::zeros({2, 5})); }),
              HasSubstr("needs 5 outputs, but the model has 3"));
}

TEST(cross_entropy, refuses_targets_that_the_model_has_no_output_for) {
  const auto projection = projection_of(4, 5, false);
  const auto loss_of = [&](std::vector<std::int64_t> targets) {
    return error_of([&] {
      cross_entropy(torch::randn({2, 4}, float64), *projection, torch::tensor(targets, at::kLong));
    });
  };

  EXPECT_THAT(loss_of({1, 5}), HasSubstr("target 5 is outside the model's 5 outputs"));
  EXPECT_THAT(loss_of({1, -7}), HasSubstr("target -7"));
  EXPECT_THAT(loss_of({1}), HasSubstr("1 targets for 2 outputs"));
}

Batch laid_out(const std::vector<std::int64_t>& starts) {
  Batch batch;
  batch.starts = starts;
  return batch;
}

at::Tensor dense_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const std::vector<std::int64_t>& starts, bool causal, double scale) {
  const auto group = q.size(1) / k.size(1);
  const auto rows = q.size(0);
  const auto keys = k.repeat_interleave(group, 1).transpose(0, 1);
  const auto values = v.repeat_interleave(group, 1).transpose(0, 1);
  at::Tensor allowed = at::zeros({rows, rows}, at::kBool);
  for (std::size_t sample = 0; sample + 1 < starts.size(); ++sample) {
    const auto range = at::indexing::Slice(starts[sample], starts[sample + 1]);
    allowed.index_put_({range, range}, true);
  }
  if (causal) allowed = allowed.tril();
  const auto scores =
      q.transpose(0, 1).matmul(keys.transpose(1, 2)).mul(scale).masked_fill(~allowed, -INFINITY);
  return scores.softmax(-1).matmul(values).transpose(0, 1);
}

TEST(attention, equals_dense_attention_with_a_mask) {
  torch::manual_seed(2);
  const std::vector<std::vector<std::int64_t>> packings = {{0, 9}, {0, 4, 5, 9}};
  for (const auto& starts : packings) {
    for (const bool causal : {false, true}) {
      for (const std::int64_t key_heads : {1, 2, 4}) {
        const at::Tensor q = random_leaf({9, 4, 8});
        const at::Tensor k = random_leaf({9, key_heads, 8});
        const at::Tensor v = random_leaf({9, key_heads, 8});
        const at::Tensor expected = dense_attention(q, k, v, starts, causal, 0.3);
        const at::Tensor weights = torch::randn({9, 4, 8}, float64);
        const at::Tensor y =
            nn::attention(q, k, v, laid_out(starts), {.scale = 0.3, .causal = causal});
        EXPECT_LT(difference(y, expected), 1e-10);
        const auto gradients = torch::autograd::grad({(y * weights).sum()}, {q, k, v});
        const auto expected_gradients =
            torch::autograd::grad({(expected * weights).sum()}, {q, k, v});
        for (int i = 0; i < 3; ++i)
          EXPECT_LT(difference(gradients[i], expected_gradients[i]), 1e-10)
              << i << " of " << key_heads << " key heads";
      }
    }
  }
}

TEST(attention, of_the_last_positions_sees_all_before_them) {
  const at::Tensor q = torch::randn({9, 4, 8});
  const at::Tensor k = torch::randn({9, 2, 8});
  const at::Tensor v = torch::randn({9, 2, 8});
  for (const nn::AttentionOptions options : {nn::AttentionOptions{.scale = 0.3},
                                             {.scale = 0.3, .window = 4},
                                             {.scale = 0.3, .softcap = 2}}) {
    const at::Tensor whole = nn::attention(q, k, v, laid_out({0, 9}), options);
    for (const auto& [rows, with_gradients] : std::vector<std::pair<std::int64_t, bool>>{
             {1, true}, {3, true}, {9, true}, {1, false}, {3, false}, {9, false}}) {
      const torch::AutoGradMode mode(with_gradients);  // without, it is our own kernel
      KeyValueCache cache(1);
      auto context = ForwardContext(laid_out({0, rows})).in_block(0);
      context.cache = &cache;
      if (rows < 9) cache.append(0, 0, k.slice(0, 0, 9 - rows), v.slice(0, 0, 9 - rows));
      const at::Tensor last =
          nn::attention(q.slice(0, -rows), k.slice(0, -rows), v.slice(0, -rows), context, options);
      EXPECT_LT(difference(last, whole.slice(0, -rows)), 1e-5) << rows;
    }
  }
}

TEST(attention, in_a_window_equals_dense_attention_with_a_band) {
  const at::Tensor q = torch::randn({9, 2, 8}, float64);
  const at::Tensor k = torch::randn({9, 2, 8}, float64);
  const at::Tensor v = torch::randn({9, 2, 8}, float64);
  const auto band = at::ones({9, 9}, at::kBool).tril().triu(-2);  // itself and two before
  const auto scores = [&](double softcap) {
    const auto plain = q.transpose(0, 1).matmul(k.permute({1, 2, 0})) * 0.3;
    return (softcap > 0 ? softcap * (plain / softcap).tanh() : plain).masked_fill(~band, -INFINITY);
  };
  for (const double softcap : {0.0, 0.5}) {
    const auto expected = scores(softcap).softmax(-1).matmul(v.transpose(0, 1)).transpose(0, 1);
    EXPECT_LT(difference(nn::attention(q, k, v, laid_out({0, 9}),
                                       {.scale = 0.3, .window = 3, .softcap = softcap}),
                         expected),
              1e-10)
        << softcap;
  }
}

struct Prefix final : VirtualTokens {
  std::int64_t length() const override { return 3; }
  std::pair<at::Tensor, at::Tensor> keys_values(std::int64_t) override { return {keys, values}; }
  at::Tensor keys = torch::randn({3, 2, 8}, float64);
  at::Tensor values = torch::randn({3, 2, 8}, float64);
};

TEST(attention, of_every_sample_begins_with_the_prefix) {
  const at::Tensor q = torch::randn({9, 2, 8}, float64);
  const at::Tensor k = torch::randn({9, 2, 8}, float64);
  const at::Tensor v = torch::randn({9, 2, 8}, float64);
  Prefix prefix;
  ForwardContext context(laid_out({0, 4, 9}));
  context.virtual_tokens = &prefix;
  for (const bool causal : {false, true}) {
    const auto y = nn::attention(q, k, v, context, {.scale = 0.3, .causal = causal});
    for (const auto& [first, end] : {std::pair(0, 4), std::pair(4, 9)}) {
      const auto with_prefix = [&](const at::Tensor& p, const at::Tensor& x) {
        return at::cat({p, x.slice(0, first, end)});
      };
      const auto before = torch::zeros({3, 2, 8}, float64);
      const auto expected =
          nn::attention(with_prefix(before, q), with_prefix(prefix.keys, k),
                        with_prefix(prefix.values, v), laid_out({0, 3 + end - first}),
                        {.scale = 0.3, .causal = causal})
              .slice(0, 3);
      EXPECT_LT(difference(y.slice(0, first, end), expected), 1e-10);
    }
  }
}

TEST(rotary, turns_pairs_of_halves_by_position_times_frequency) {
  nn::RotaryEmbedding rotary(6, 32, 100.0);
  const at::Tensor x = torch::randn({2, 3, 6}).requires_grad_(true);
  const at::Tensor positions = torch::tensor({0, 17}, at::kLong);

  const at::Tensor y = nn::rotate(x, rotary.at(positions));

  EXPECT_LT(difference(y[0], x[0]), 1e-6);
  for (int pair = 0; pair < 3; ++pair) {
    const double angle = 17 * std::pow(100.0, -2.0 * pair / 6);
    const auto first = x[1].select(1, pair);
    const auto second = x[1].select(1, pair + 3);
    EXPECT_LT(difference(y[1].select(1, pair), first * std::cos(angle) - second * std::sin(angle)),
              1e-4);
    EXPECT_LT(
        difference(y[1].select(1, pair + 3), second * std::cos(angle) + first * std::sin(angle)),
        1e-4);
  }
  const at::Tensor dy = torch::randn_like(y);
  const auto gradient = torch::autograd::grad({y}, {x}, {dy});
  // the gradient is dy turned back
  EXPECT_LT(difference(nn::rotate(gradient[0], rotary.at(positions)), dy), 1e-5);
}

TEST(rms_norm, has_the_value_and_gradients_of_the_plain_form) {
  nn::RMSNorm norm(6, 1e-3);
  norm.to(at::kDouble);
  norm.weight.detach().normal_();
  const at::Tensor x = random_leaf({5, 6});
  const at::Tensor dy = torch::randn({5, 6}, float64);

  const at::Tensor y = norm.forward(x);
  const at::Tensor expected = at::rms_norm(x, {6}, norm.weight, 1e-3);
  const auto gradients = torch::autograd::grad({y}, {x, norm.weight}, {dy});
  const auto expected_gradients = torch::autograd::grad({expected}, {x, norm.weight}, {dy});

  EXPECT_LT(difference(y, expected), 1e-12);
  for (int i = 0; i < 2; ++i)
    EXPECT_LT(difference(gradients[i], expected_gradients[i]), 1e-12) << i;
}

TEST(rms_norm, passes_the_gradient_on_when_its_weight_is_frozen) {
  nn::RMSNorm norm(6, 1e-3);
  norm.weight.detach().fill_(1);
  norm.weight.requires_grad_(false);
  const at::Tensor x = torch::randn({5, 6}).requires_grad_(true);

  norm.forward(x).sum().backward();

  EXPECT_TRUE(x.grad().defined());
}

TEST(swiglu, has_the_value_and_gradients_of_the_plain_form) {
  const at::Tensor gate = random_leaf({5, 6});
  const at::Tensor up = random_leaf({5, 6});
  const at::Tensor dy = torch::randn({5, 6}, float64);

  const at::Tensor y = nn::swiglu(gate, up);
  const at::Tensor expected = at::silu(gate) * up;
  const auto gradients = torch::autograd::grad({y}, {gate, up}, {dy});
  const auto expected_gradients = torch::autograd::grad({expected}, {gate, up}, {dy});

  EXPECT_LT(difference(y, expected), 1e-12);
  for (int i = 0; i < 2; ++i)
    EXPECT_LT(difference(gradients[i], expected_gradients[i]), 1e-12) << i;
}

/// As the formula says it, value by value.
std::uint16_t evenly(float value, std::int64_t place) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + (static_cast<std::uint32_t>(place) * 40503 & 0xFFFF)) >>
                                    16);
}

TEST(rounded_evenly, rounds_each_value_at_its_own_threshold) {
  torch::manual_seed(3);
  const auto values = torch::randn({3, 70001});
  const auto rounded = nn::rounded_evenly(values, 5).flatten();
  const auto flat = values.flatten();
  for (std::int64_t i = 0; i < flat.numel(); ++i)
    ASSERT_EQ(rounded[i].view(at::kShort).item<std::int16_t>(),
              static_cast<std::int16_t>(evenly(flat[i].item<float>(), 5 + i)))
        << i;
  EXPECT_LT(((rounded.to(at::kFloat) - flat).abs() / flat.abs()).max().item<double>(), 1.0 / 128);
}

TEST(rounded_evenly, keeps_small_changes_on_average_and_numbers_of_bfloat16) {
  const auto digit = std::ldexp(1.0, -7);  // of 1 in bfloat16
  for (const double sign : {-1.0, 1.0})
    for (const double part : {0.01, 0.3, 0.5, 0.9}) {
      const auto values = torch::full({1000, 30}, sign * (1 + part * digit));
      const auto change = nn::rounded_evenly(values).to(at::kFloat).mean() - sign;
      EXPECT_NEAR(change.item<double>(), sign * part * digit, 0.002 * digit) << part;
    }
  const auto numbers = torch::randn({7, 11}).to(at::kBFloat16);
  EXPECT_TRUE(nn::rounded_evenly(numbers.to(at::kFloat)).equal(numbers));
  const auto limits = torch::tensor({INFINITY, -INFINITY, 0.0F, -0.0F});
  EXPECT_TRUE(nn::rounded_evenly(limits).to(at::kFloat).equal(limits));
  for (const std::uint32_t bits : {0x7FFFFFFFU, 0xFFFFFFFFU, 0x7F800001U, 0x7FC00000U})
    EXPECT_TRUE(nn::rounded_evenly(torch::full({200}, std::bit_cast<float>(bits)))
                    .isnan()
                    .all()
                    .item<bool>())
        << bits;
}

TEST(rounded_evenly, has_the_gradient_of_its_values) {
  const auto values = torch::randn({50, 3}).requires_grad_();
  const auto y = nn::rounded(values, at::kBFloat16);
  EXPECT_TRUE(y.equal(nn::rounded_evenly(values.detach())));
  const auto dy = torch::randn({50, 3}).to(at::kBFloat16);
  y.backward(dy);
  EXPECT_TRUE(values.grad().equal(dy.to(at::kFloat)));
  EXPECT_TRUE(nn::rounded(values, at::kFloat).is_same(values));
}

TEST(follow_rounded, sets_what_does_not_round_to_it) {
  torch::manual_seed(4);
  const auto exact = torch::randn({300, 700});
  for (const bool turned : {false, true}) {
    auto values = turned ? exact.t().clone().t() : exact.clone();
    auto rounded = nn::rounded_evenly(values, 7);
    rounded.narrow(0, 3, 2).fill_(64);
    nn::follow_rounded(values, rounded, 7);
    EXPECT_TRUE(values.narrow(0, 3, 2).eq(64).all().item<bool>());
    EXPECT_TRUE(values.narrow(0, 5, 295).equal(exact.narrow(0, 5, 295)));
    auto result = torch::empty_like(values, at::kBFloat16);
    nn::round_evenly_into(result, values, 7);
    EXPECT_TRUE(result.equal(rounded));
  }
}

TEST(rounded_evenly, gives_pieces_what_the_whole_has) {
  const auto values = torch::randn({200, 1000});
  const auto whole = nn::rounded_evenly(values).flatten();
  for (const std::int64_t from : {0, 1024, 70000})
    EXPECT_TRUE(nn::rounded_evenly(values.flatten().narrow(0, from, 90000), from)
                    .equal(whole.narrow(0, from, 90000)));
  EXPECT_TRUE(nn::rounded_evenly(values.t().contiguous().t()).flatten().equal(whole));
}

struct Two : torch::nn::Module {
  Two() {
    first = register_module("first", projection_of(4, 3, true));
    second = register_module("second", projection_of(3, 2, false));
  }
  std::shared_ptr<nn::Linear> first;
  std::shared_ptr<nn::Linear> second;
};

TEST(linear, applies_deltas_in_passes_where_they_act_and_gives_the_same_once_they_are_merged) {
  Two two;
  const at::Tensor x = torch::randn({5, 4}, float64);
  const at::Tensor base = two.first->forward(x, alone);
  two.first->add_delta("delta", std::make_shared<Product>(4, 3));
  const at::Tensor adapted = two.first->forward(x, alone);
  EXPECT_GT(difference(adapted, base), 0.1);

  auto base_alone = alone.base_alone();
  EXPECT_EQ(difference(two.first->forward(x, base_alone), base), 0);
  EXPECT_EQ(difference(two.first->forward(x, alone), adapted), 0);

  EXPECT_TRUE(two.named_parameters().contains("first.delta.u"));
  two.first->merge_deltas();
  EXPECT_LT(difference(two.first->forward(x, alone), adapted), 1e-12);
  EXPECT_FALSE(two.named_parameters().contains("first.delta.u"));
  EXPECT_TRUE(two.first->deltas().empty());
}

TEST(linear, lists_the_layers_below_a_module_by_name) {
  Two two;
  const auto found = nn::linears(two);

  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].first, "first");
  EXPECT_EQ(found[1].second, two.second);
}

/// Tensors in memory.
struct Memory final : WeightSource {
  explicit Memory(std::vector<std::pair<std::string, at::Tensor>> named) {
    for (auto& [name, tensor] : named) {
      infos.push_back({name, tensor.sizes().vec(), "F64", tensor.nbytes()});
      values[name] = tensor;
    }
  }
  const std::vector<TensorInfo>& tensors() const override { return infos; }
  at::Tensor read(const std::string& name) override { return values.at(name); }
  std::vector<TensorInfo> infos;
  std::map<std::string, at::Tensor> values;
};

TEST(load_parameters, takes_the_tensors_themselves_where_the_dtype_fits) {
  Two two;
  Memory source({{"first.weight", torch::randn({3, 4}, float64)},
                 {"first.bias", torch::randn({3})},
                 {"x.weight", torch::randn({2, 3}, float64)}});

  nn::load_parameters(two, source, [](const std::string& name) {
    return name == "second.weight" ? "x.weight" : name;
  });

  EXPECT_EQ(two.first->weight.data_ptr(), source.values["first.weight"].data_ptr());
  EXPECT_EQ(two.first->bias.scalar_type(), at::kDouble);
  EXPECT_LT(difference(two.first->bias, source.values["first.bias"]), 1e-12);
  EXPECT_EQ(two.second->weight.data_ptr(), source.values["x.weight"].data_ptr());
  EXPECT_TRUE(two.first->weight.requires_grad());
}

TEST(load_parameters, names_all_that_is_missing_or_misshapen_at_once) {
  Two two;
  Memory source({{"first.weight", torch::randn({4, 3}, float64)}});

  const auto error = error_of([&] { nn::load_parameters(two, source); });

  EXPECT_THAT(error, HasSubstr("first.weight is [4, 3], not [3, 4]"));
  EXPECT_THAT(error, HasSubstr("2 tensors are missing (first.bias, second.weight)"));
}

TEST(select_names, matches_names_and_their_ends) {
  const std::vector<std::string> names = {"model.layers.1.q_proj", "model.layers.11.q_proj",
                                          "model.norm"};

  EXPECT_EQ(nn::select_names({"q_proj"}, names, "x").size(), 2u);
  EXPECT_EQ(nn::select_names({"layers.1.*", "norm"}, names, "x"),
            (std::vector<std::string>{names[0], names[2]}));
  EXPECT_THAT(error_of([&] { nn::select_names({"q_porj"}, names, "strategy.targets"); }),
              testing::AllOf(HasSubstr("strategy.targets"), HasSubstr("'q_proj'")));
}

TEST(config_value, says_what_is_wrong_with_a_field) {
  const nlohmann::json config = {
      {"hidden_size", "many"}, {"heads", nullptr}, {"layers", std::int64_t{1} << 40}};

  EXPECT_THAT(error_of([&] { nn::config_value<std::int64_t>(config, "hidden_size"); }),
              HasSubstr("hidden_size = \"many\" where an integer is needed"));
  EXPECT_THAT(error_of([&] { nn::config_value<std::int64_t>(config, "absent"); }),
              HasSubstr("lacks 'absent'"));
  EXPECT_THAT(error_of([&] { nn::config_size(config, "layers"); }),
              HasSubstr("which no model has"));
  EXPECT_EQ(nn::config_value<std::int64_t>(config, "heads", 7), 7);
}

}  // namespace
