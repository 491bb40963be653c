// What a pass through a model knows: where its random numbers come from, and which changes act on
// which samples.
#include <ATen/core/PhiloxRNGEngine.h>
#include <attune/forward.hpp>
#include <attune/nn.hpp>
#include <gmock/gmock.h>
#include <torch/torch.h>

#include "alone.hpp"
#include "kernels/rows.hpp"
#include "tiny_models.hpp"

namespace {

using namespace attune;
using namespace attune::tiny;

double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

/// Samples of these lengths, of these rows of the data.
Batch rows_of_data(const std::vector<std::int64_t>& lengths, std::vector<std::int64_t> ids) {
  auto batch = batch_of(lengths);
  batch.ids = std::move(ids);
  return batch;
}

TEST(philox, gives_the_words_of_its_authors) {
  // kat_vectors of Random123 1.09: "philox4x32 10", counter and key of zeros.
  const std::uint32_t words[] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  float numbers[4];
  kernels::uniform(0, 0, numbers, 4);
  for (int i = 0; i < 4; ++i)
    EXPECT_EQ(numbers[i], static_cast<float>(words[i] >> 8) * 0x1p-24f) << i;
}

TEST(philox, gives_the_words_of_libtorchs_engine_for_every_length_and_row) {
  for (const std::size_t n : {1, 3, 4, 5, 63, 64, 65, 1000})
    for (const std::uint32_t row : {0u, 1u, 77u, 0xFFFFFFFFu}) {
      const std::uint64_t key = 0x0123456789ABCDEF + n;
      std::vector<float> numbers(n, -1);
      kernels::uniform(key, row, numbers.data(), n);
      for (std::size_t i = 0; i < n; ++i) {
        at::philox_engine engine(key, 0, i / 4 + (std::uint64_t{row} << 32));
        std::uint32_t word = 0;
        for (std::size_t j = 0; j <= i % 4; ++j) word = engine();
        ASSERT_EQ(numbers[i], static_cast<float>(word >> 8) * 0x1p-24f)
            << n << " numbers, row " << row << ", number " << i;
      }
    }
}

TEST(random, depends_on_seed_step_row_block_and_call) {
  const at::Tensor x = at::zeros({5, 7});
  const auto drawn = [&](RandomKey key, std::int64_t row, std::int64_t block, int call) {
    auto context = ForwardContext(rows_of_data({5}, {row}), Phase::training, key).in_block(block);
    for (int i = 0; i < call; ++i) context.random(x);
    return context.random(x);
  };
  const auto first = drawn({1, 2}, 3, 4, 0);
  EXPECT_TRUE(first.equal(drawn({1, 2}, 3, 4, 0)));
  for (const auto& other : {drawn({2, 2}, 3, 4, 0), drawn({1, 1}, 3, 4, 0), drawn({1, 2}, 2, 4, 0),
                            drawn({1, 2}, 3, 5, 0), drawn({1, 2}, 3, 4, 1)})
    EXPECT_EQ(other.eq(first).sum().item<std::int64_t>(), 0);
  EXPECT_GE(first.min().item<float>(), 0);
  EXPECT_LT(first.max().item<float>(), 1);
}

TEST(random, of_a_sample_does_not_depend_on_the_rest_of_the_batch) {
  const auto drawn = [](const Batch& batch) {
    ForwardContext context(batch, Phase::training, {1, 2});
    return context.random(at::zeros({batch.length(), 6}));
  };
  const auto together = drawn(rows_of_data({3, 4, 2}, {8, 5, 9}));
  const auto alone = drawn(rows_of_data({4}, {5}));
  EXPECT_TRUE(together.slice(0, 3, 7).equal(alone));

  // Two samples a row: the second is not the first.
  const auto pair = drawn(rows_of_data({4, 4}, {5}));
  EXPECT_TRUE(pair.slice(0, 0, 4).equal(alone));
  EXPECT_FALSE(pair.slice(0, 4, 8).equal(alone));
}

TEST(random, of_some_rows_is_that_of_these_rows) {
  const auto batch = rows_of_data({3, 4}, {1, 2});
  ForwardContext context(batch, Phase::training);
  const auto rows = torch::tensor({6, 0, 3}, at::kLong);
  auto some = context.of_rows(rows, 7);
  EXPECT_TRUE(some.random(at::zeros({3, 5}))
                  .equal(context.random(at::zeros({7, 5})).index_select(0, rows)));
}

TEST(dropout, zeroes_a_share_and_scales_the_rest_and_so_its_gradient) {
  const auto batch = rows_of_data({400, 600}, {0, 1});
  for (const auto dtype : {at::kFloat, at::kDouble, at::kBFloat16})
    for (const double p : {0.1, 0.5, 0.9}) {
      const at::Tensor x = torch::ones({1000, 33}, dtype).requires_grad_(true);
      auto context = ForwardContext(batch, Phase::training, {7, 0});
      auto again = context;
      const auto y = context.dropout(x, p);
      const auto is_kept = again.random(x).ge(static_cast<float>(p));
      EXPECT_TRUE(y.ne(0).equal(is_kept)) << "the numbers of random()";
      EXPECT_NEAR(is_kept.to(at::kDouble).mean().item<double>(), 1 - p, 0.01);
      EXPECT_NEAR(y.max().item<double>(), 1 / (1 - p), 0.02 / (1 - p));
      y.sum().backward();
      EXPECT_TRUE(x.grad().equal(y.detach())) << "of ones";
    }
  ForwardContext evaluation(batch);
  const at::Tensor x = torch::ones({1000, 33});
  EXPECT_TRUE(evaluation.dropout(x, 0.5).is_same(x));
}

TEST(dropout, of_a_model_does_not_depend_on_how_samples_are_shared_out) {
  const auto model = llama();
  const auto list = listed({{"lora", {{"rank", std::int64_t{4}}, {"dropout", 0.5}}}});
  list->prepare(*model);
  const torch::NoGradGuard no_grad;
  for (auto& [name, parameter] : trainable(*model)) parameter.normal_();
  const auto both = rows_of_data({5, 3}, {4, 9});
  auto second = pack({both.tokens.slice(0, 5)});
  second.ids = {9};
  const auto together = model->logits(training(both, {1, 1}));
  const auto alone = model->logits(training(second, {1, 1}));
  EXPECT_LT(difference(together.slice(0, 5), alone), 1e-4);
  EXPECT_GT(difference(together.slice(0, 5), model->logits(second)), 1e-2) << "it does drop";
}

TEST(pass, computes_the_tables_of_its_positions_once) {
  nn::RotaryEmbedding rotary(6, 32, 100.0);
  ForwardContext context(batch_of({3, 4}));
  const auto* first = context.rotation(rotary).cosine.unsafeGetTensorImpl();
  auto in_block = context.in_block(1);
  EXPECT_EQ(in_block.rotation(rotary).cosine.unsafeGetTensorImpl(), first);
  EXPECT_TRUE(context.rotation(rotary).cosine.equal(rotary.at(context.batch().positions).cosine));
  auto other = context.with_batch(batch_of({2}));
  EXPECT_EQ(other.rotation(rotary).cosine.size(0), 2) << "another batch has other positions";
}

// ---- Whose changes act

/// y + by
struct Shift final : nn::Delta {
  Shift(std::int64_t whose, std::int64_t out) {
    owner = whose;
    by = register_parameter("by", torch::randn({out}));
  }
  at::Tensor forward(const nn::Linear&, const at::Tensor&, const at::Tensor& y,
                     ForwardContext&) override {
    return y + by;
  }
  void merge(nn::Linear&) const override {}
  at::Tensor by;
};

/// A Llama with a change for each owner 1, 2, ...
std::shared_ptr<Model> shared_model(int owners) {
  const auto model = llama();
  torch::manual_seed(4);
  for (int owner = 1; owner <= owners; ++owner) {
    for (const auto& [name, linear] : nn::linears(model->module()))
      linear->add_delta(fmt::format("shift_{}", owner),
                        std::make_shared<Shift>(owner, linear->out()));
  }
  return model;
}

TEST(owners, have_their_changes_on_their_own_samples_alone) {
  const auto model = shared_model(2);
  const torch::NoGradGuard no_grad;
  const auto batch = batch_of({5, 3, 4, 2});
  // Samples 0 and 1 are owner 2's, sample 2 is nobody's, sample 3 is owner 1's.
  const auto together = model->logits(ForwardContext(batch).shared_by({{2, 0, 2}, {1, 3, 1}}));
  const auto alone = [&](std::int64_t owner, std::int64_t first, std::int64_t end) {
    const auto part = pack({batch.tokens.slice(0, first, end)});
    if (owner == 0) return model->logits(ForwardContext(part).base_alone());
    return model->logits(ForwardContext(part).shared_by({{owner, 0, 1}}));
  };
  EXPECT_LT(difference(together.slice(0, 0, 5), alone(2, 0, 5)), 1e-4);
  EXPECT_LT(difference(together.slice(0, 5, 8), alone(2, 5, 8)), 1e-4);
  EXPECT_LT(difference(together.slice(0, 8, 12), alone(0, 8, 12)), 1e-4);
  EXPECT_LT(difference(together.slice(0, 12, 14), alone(1, 12, 14)), 1e-4);
  EXPECT_GT(difference(alone(1, 0, 5), alone(2, 0, 5)), 1e-2);
}

TEST(owners, get_the_loss_and_the_gradients_that_they_would_get_alone) {
  const auto model = shared_model(2);
  auto batch = batch_of({5, 4});
  batch.targets = batch.tokens.roll(-1);
  batch.targets[1] = ignored_target;
  const auto shared = ForwardContext(batch, Phase::training).shared_by({{1, 0, 1}, {2, 1, 1}});
  const auto gradient_of = [&](const ForwardContext& context, int owner) {
    model->module().zero_grad();
    supervised_loss(*model, context).sum.backward();
    return model->module()
        .named_parameters()[fmt::format("model.layers.0.self_attn.q_proj.shift_{}.by", owner)]
        .grad()
        .clone();
  };
  const auto part = [&](std::int64_t first, std::int64_t end) {
    auto one = pack({batch.tokens.slice(0, first, end)});
    one.targets = batch.targets.slice(0, first, end);
    return one;
  };
  const auto first = ForwardContext(part(0, 5)).shared_by({{1, 0, 1}});
  const auto second = ForwardContext(part(5, 9)).shared_by({{2, 0, 1}});
  EXPECT_LT(difference(gradient_of(shared, 1), gradient_of(first, 1)), 1e-4);
  EXPECT_LT(difference(gradient_of(shared, 2), gradient_of(second, 2)), 1e-4);
  EXPECT_NEAR(supervised_loss(*model, shared).sum.item<double>(),
              supervised_loss(*model, first).sum.item<double>() +
                  supervised_loss(*model, second).sum.item<double>(),
              1e-3);
}

std::pair<std::string, Values> small(const std::string& plugin) {
  return {plugin, plugin == "lora" ? Values{{"rank", std::int64_t{4}}} : Values{}};
}

/// The same list, with the same values, on a base of its own.
std::pair<std::shared_ptr<Model>, std::shared_ptr<Strategies>> alone_with_the_values_of(
    const Strategies& list, const std::string& plugin) {
  const auto model = llama();
  const auto own = listed({small(plugin)});
  own->prepare(*model);
  for (std::size_t i = 0; i < own->trained().size(); ++i)
    at::Tensor(own->trained()[i].second).copy_(list.trained()[i].second);
  return {model, own};
}

TEST(views, let_several_runs_change_one_base) {
  const auto model = llama();
  const std::vector<std::string> plugins = {"lora", "ia3", "lora"};
  std::vector<std::shared_ptr<Strategies>> runs;
  for (std::size_t i = 0; i < plugins.size(); ++i)
    runs.push_back(listed({small(plugins[i])}, static_cast<std::int64_t>(i) + 1));
  for (const auto& run : runs) run->prepare(*model);
  const torch::NoGradGuard no_grad;
  const auto batch = batch_of({6});
  const auto base = llama()->logits(batch);
  std::size_t trained = 0;
  for (const auto& run : runs) {
    for (const auto& [name, parameter] : run->trained()) {
      at::Tensor(parameter).normal_();
      ++trained;
    }
  }
  EXPECT_EQ(trainable(*model).size(), trained)
      << "each parameter is one run's, and the base is nobody's";
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const auto owner = static_cast<std::int64_t>(i) + 1;
    const auto [alone, own] = alone_with_the_values_of(*runs[i], plugins[i]);
    const auto logits = model->logits(ForwardContext(batch).shared_by({{owner, 0, 1}}));
    EXPECT_LT(difference(logits, alone->logits(batch)), 1e-4) << owner;
    EXPECT_GT(difference(logits, base), 1e-2) << owner;
    const auto ours = runs[i]->export_adapter(*model);
    const auto theirs = own->export_adapter(*alone);
    ASSERT_EQ(ours->tensors.size(), theirs->tensors.size());
    EXPECT_EQ(ours->config, theirs->config);
    for (std::size_t k = 0; k < ours->tensors.size(); ++k) {
      EXPECT_EQ(ours->tensors[k].first, theirs->tensors[k].first);
      EXPECT_TRUE(ours->tensors[k].second.equal(theirs->tensors[k].second))
          << ours->tensors[k].first;
    }
  }
  EXPECT_TRUE(model->logits(ForwardContext(batch).base_alone()).equal(base));
}

/// Trains a parameter without its view.
struct Stray final : Strategy {
  void prepare(ModelView& view) override {
    view.model().projection().weight.set_requires_grad(true);
  }
};

TEST(views, are_how_a_strategy_says_what_is_trained) {
  Strategies list({{"stray", std::make_shared<Stray>()}});
  const auto model = bert();
  try {
    list.prepare(*model);
    FAIL() << "accepted";
  } catch (const Fault& fault) {
    EXPECT_THAT(fault.what(), testing::HasSubstr("strategy 'stray' sets requires_grad of"));
    EXPECT_THAT(fault.what(), testing::HasSubstr("ModelView::train"));
  }
}

}  // namespace
