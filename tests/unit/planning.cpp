// What is planned without weights is what is built with them: every strategy on the tiny models.
#include <attune/adapter.hpp>
#include <attune/nn.hpp>
#include <attune/parameter.hpp>
#include <gmock/gmock.h>
#include <torch/torch.h>

#include <functional>

#include "nn/activations.hpp"
#include "nn/meta_kernels.hpp"
#include "nn/operations.hpp"
#include "nn/unknown_values.hpp"
#include "tiny_models.hpp"
#include "weights/shapes.hpp"

namespace {

using namespace attune;
using testing::Contains;
using testing::HasSubstr;

struct Architecture {
  std::string plugin;
  nlohmann::json config;
  tiny::Random weights;
  std::vector<std::string> labels;
};

Architecture llama() { return {"llama", tiny::llama_config, tiny::llama_weights(), {}}; }
Architecture bert() {
  return {"bert", tiny::bert_config, tiny::bert_weights(), {"no", "perhaps", "yes"}};
}

std::shared_ptr<Model> build(const Architecture& of, WeightSource& weights) {
  ModelContext context{of.config, weights, of.labels};
  const auto& entry = tiny::registry().find(Kind::model, of.plugin);
  return std::static_pointer_cast<Model>(entry.build(entry.defaults().get(), &context));
}

Architecture efficientnet() {
  return {"efficientnet", tiny::efficientnet_config, tiny::efficientnet_weights(), {"no", "yes"}};
}

/// With targets: a decoder's next tokens, or a class for each sample.
Batch batch_for(const Architecture& of, const std::vector<std::int64_t>& lengths) {
  const bool is_decoder = of.plugin == "llama";
  const bool takes_pictures = of.plugin == "efficientnet";
  auto batch =
      takes_pictures
          ? tiny::pictures_of(torch::randint(256, {std::ssize(lengths), 3, 8, 8}).to(at::kByte))
          : tiny::batch_of(lengths);
  batch.targets = torch::randint(is_decoder ? 31 : 2,
                                 {is_decoder ? batch.length() : batch.samples()}, at::kLong);
  if (is_decoder) batch.targets[0] = ignored_target;
  return batch;
}

/// What is told of a model with its strategies, and the most memory that a pass takes.
struct Told {
  std::string text;
  double most = 0;
};

/// Names, shapes, dtypes and what trains; then the bytes that a pass in training keeps.
Told told(Model& model, Strategies& strategies, const Batch& batch) {
  std::string text;
  for (const auto& item : model.module().named_parameters())
    text += fmt::format("{} {} {} {}\n", item.key(), c10::str(item.value().sizes()),
                        c10::toString(item.value().scalar_type()), item.value().requires_grad());
  std::size_t packed = 0;
  for (const auto& [name, linear] : nn::linears(model.module()))
    if (linear->packed()) packed += linear->packed()->bytes();
  const auto memory = nn::pass_memory(
      model, [&] { return strategies.loss(model, ForwardContext(batch, Phase::training)).sum; });
  return {text + fmt::format("packed {}\nkept {}\n", packed, memory.kept),
          static_cast<double>(memory.most)};
}

using List = std::vector<std::pair<std::string, tiny::Values>>;

/// Sizes that the tiny models have room for.
tiny::Values small(const std::string& strategy, tiny::Values more = {}) {
  if (strategy == "lora" || strategy == "vera") more["rank"] = std::int64_t{4};
  if (strategy == "prefix" || strategy == "prompt") more["tokens"] = std::int64_t{2};
  if (strategy == "adapter") more["width"] = std::int64_t{4};
  return more;
}

/// The user's mistake is what there is to tell where a list does not go together.
Told told_of(const Architecture& of, WeightSource& weights, const List& list, const Batch& batch) {
  try {
    const auto model = build(of, weights);
    const auto strategies = tiny::listed(list);
    strategies->prepare(*model);
    return told(*model, *strategies, batch);
  } catch (const Error& error) {
    return {std::string("refused: ") + error.what()};
  }
}

Told measured(Architecture of, const List& list, const Batch& batch) {
  return told_of(of, of.weights, list, batch);
}

Told planned(const Architecture& of, const List& list, const Batch& batch) {
  const nn::ParametersOn where(at::kMeta);
  const nn::UnknownValues unknown;
  Shapes shapes(of.weights);
  return told_of(of, shapes, list, batch);
}

/// The most memory of a pass is about the same: kernels of the host have tensors for themselves.
void expect_equal(const Told& planned, const Told& measured) {
  EXPECT_EQ(planned.text, measured.text);
  EXPECT_GT(planned.most, 0.6 * measured.most - 1);
  EXPECT_LT(planned.most, 1.25 * measured.most + 1);
}

/// The strategy by itself; after LoRA where it does not train by itself.
List stands_with(const Architecture& of, const std::string& strategy, const Batch& batch) {
  const auto alone = measured(of, {{strategy, small(strategy)}}, batch).text;
  if (!alone.starts_with("refused") || alone.find("trains no parameters") == std::string::npos)
    return {{strategy, small(strategy)}};
  return {{"lora", small("lora")}, {strategy, small(strategy)}};
}

TEST(planning, tells_of_every_strategy_what_a_model_with_weights_does) {
  for (const auto& of : {llama(), bert()}) {
    const auto batch = batch_for(of, {5, 9, 1});
    std::vector<std::string> compared;
    for (const auto& name : tiny::registry().names(Kind::strategy)) {
      SCOPED_TRACE(of.plugin + " with " + name);
      const auto list = stands_with(of, name, batch);
      const auto truth = measured(of, list, batch);
      expect_equal(planned(of, list, batch), truth);
      if (!truth.text.starts_with("refused")) compared.push_back(name);
    }
    EXPECT_THAT(compared, testing::IsSupersetOf(
                              {"adapter", "full", "ia3", "lora", "prefix", "quantize", "vera"}));
  }
}

TEST(planning, knows_the_ways_in_which_lora_starts_and_is_held) {
  const auto batch = batch_for(llama(), {4, 7});
  const List ways[] = {{{"lora", small("lora", {{"init", std::string("pissa")}})}},
                       {{"lora", small("lora", {{"init", std::string("olora")}})}},
                       {{"lora", small("lora", {{"init", std::string("orthogonal")}})}},
                       {{"lora", small("lora", {{"dora", true}})}},
                       {{"quantize", {{"type", std::string("int8")}}}, {"lora", small("lora")}},
                       {{"lora", small("lora")}, {"neftune", {}}}};
  for (const auto& list : ways) {
    const auto truth = measured(llama(), list, batch);
    EXPECT_THAT(truth.text, HasSubstr("kept"));
    expect_equal(planned(llama(), list, batch), truth);
  }
}

TEST(planning, computes_losses_on_pairs_and_pictures) {
  auto pairs = batch_for(llama(), {4, 7, 5, 3});
  pairs.columns["chosen"] = torch::ones({2}, at::kLong);
  for (const char* loss : {"dpo", "kto", "orpo"}) {
    SCOPED_TRACE(loss);
    const List list{{"lora", small("lora")}, {loss, {}}};
    const auto truth = measured(llama(), list, pairs);
    EXPECT_THAT(truth.text, HasSubstr("kept"));
    expect_equal(planned(llama(), list, pairs), truth);
  }
  for (const char* trained : {"full", "bitfit", "linear_probe"}) {
    SCOPED_TRACE(trained);
    const auto truth = measured(efficientnet(), {{trained, {}}}, batch_for(efficientnet(), {1, 1}));
    EXPECT_THAT(truth.text, HasSubstr("kept"));
    expect_equal(planned(efficientnet(), {{trained, {}}}, batch_for(efficientnet(), {1, 1})),
                 truth);
  }
}

TEST(planning, refuses_data_that_do_not_fit_in_the_words_of_training) {
  const auto refusal = [](const Architecture& of, const List& list, const Batch& batch,
                          const char* words) {
    const auto truth = measured(of, list, batch).text;
    EXPECT_THAT(truth, testing::StartsWith("refused: "));
    EXPECT_THAT(truth, HasSubstr(words));
    EXPECT_EQ(planned(of, list, batch).text, truth);
  };
  const List full{{"full", {}}};
  const List dpo{{"lora", small("lora")}, {"dpo", {}}};
  const List distance{{"full", {}}, {"l2sp", {}}};
  const auto text = batch_for(llama(), {5, 9, 1});
  auto without = text;
  auto classes = text;
  auto high = text;
  auto values = text;
  without.targets = at::Tensor();
  classes.targets = torch::zeros({3}, at::kLong);
  high.targets[3] = 31;
  values.targets = torch::zeros({text.length(), 2});

  refusal(llama(), dpo, text, "compares two answers");
  refusal(llama(), full, classes, "a decoder needs one per token");
  refusal(llama(), full, without, "no targets");
  refusal(llama(), distance, without, "no targets");
  refusal(llama(), full, high, "target 31 is outside the model's 31 outputs");
  refusal(llama(), full, values, "needs 2 outputs, but the model has 31");
  refusal(llama(), full, batch_for(efficientnet(), {1, 1}), "no tokens");
  refusal(efficientnet(), {{"linear_probe", {}}}, text, "tokens instead of images");
  refusal(bert(), full, batch_for(llama(), {5, 9}), "a classifier one per sample");
}

TEST(planning, computes_with_values_as_far_as_they_are_known) {
  const nn::ParametersOn where(at::kMeta);
  nn::serve_meta_device();
  const nn::UnknownValues unknown;
  const at::Tensor x = at::empty({3, 2}, at::TensorOptions().device(at::kMeta));
  const at::Tensor mask = torch::tensor({1, 0, 1}).to(at::kBool);

  EXPECT_TRUE((x + torch::ones({2})).is_meta());
  EXPECT_EQ(x.masked_select(mask.unsqueeze(1)).size(0), 4);
  EXPECT_EQ(x.index({mask}).size(0), 2);
  EXPECT_EQ(at::nonzero(mask).size(0), 2);
  EXPECT_EQ(mask.sum().item<int>(), 2);
  EXPECT_TRUE(x.cpu().is_meta());
  EXPECT_EQ(unknown.numbers_read(), 0);
  at::Tensor sum = torch::zeros({});
  sum += x.sum();
  EXPECT_TRUE(sum.is_meta());
  EXPECT_EQ(sum.item<float>(), 0);
  EXPECT_EQ(unknown.numbers_read(), 1);
  const auto needs_values = [](const std::function<void()>& work) {
    try {
      work();
    } catch (const std::exception& error) {
      return nn::asks_for_values(error);
    }
    return false;
  };
  EXPECT_TRUE(needs_values([&] { at::nonzero(x); }));
  EXPECT_TRUE(needs_values([&] { (void)x.const_data_ptr<float>(); }));
  EXPECT_FALSE(needs_values([&] { at::mm(x, x); }));
}

TEST(planning, counts_operations_once_on_both_devices) {
  nn::serve_meta_device();
  for (const auto device : {at::kCPU, at::kMeta}) {
    const auto options = at::TensorOptions().device(device);
    const auto a = at::ones({3, 4}, options);
    const auto b = at::ones({4, 5}, options);
    const auto c = at::ones({3, 5}, options);
    const auto products = [](const std::function<void()>& work) {
      return nn::count_operations(work).products;
    };
    EXPECT_EQ(products([&] { at::mm(a, b); }), 2 * 3 * 4 * 5);
    EXPECT_EQ(products([&] { at::linear(a, b.t(), c.select(0, 0)); }), 2 * 3 * 4 * 5);
    EXPECT_EQ(products([&] { c.addmm_(a, b); }), 2 * 3 * 4 * 5);
    EXPECT_EQ(products([&] { at::matmul(a.expand({7, 3, 4}), b.expand({7, 4, 5})); }),
              7 * 2 * 3 * 4 * 5);
    EXPECT_EQ(products([&] { at::add(a, a); }), 0);
    EXPECT_EQ(nn::count_operations([&] { at::add(a, a); }).made, 3 * 4 * 4);
    EXPECT_EQ(products([] { nn::add_products(11); }), 11);
    // 2 pictures of 3 channels, 4 x 6 rows and columns, 5 filters of 3 x 3, at every second place
    const auto pictures = at::ones({2, 3, 4, 6}, options);
    const auto filters = at::ones({5, 3, 3, 3}, options);
    EXPECT_EQ(products([&] { at::conv2d(pictures, filters, {}, 2, 1); }),
              2.0 * 2 * (2 * 3) * 5 * 3 * 9);
  }
  nn::add_products(5);  // of nobody: no effect
}

TEST(planning, counts_the_products_of_a_pass) {
  const auto of = llama();
  const std::int64_t length = 9;
  const auto batch = batch_for(of, {length, length});
  const nn::ParametersOn where(at::kMeta);
  const nn::UnknownValues unknown;
  Shapes shapes(of.weights);
  const auto model = build(of, shapes);
  const auto strategies = tiny::listed({{"full", {}}});
  strategies->prepare(*model);

  const auto counted = nn::count_operations(
      [&] { strategies->loss(*model, ForwardContext(batch, Phase::training)).sum.backward(); });

  // Forward, and back by the input and by the weight.
  double expected = 0;
  for (const auto& [name, linear] : nn::linears(model->module()))
    expected += 3 * 2.0 * static_cast<double>(2 * length * linear->in() * linear->out());
  const auto targets =
      static_cast<double>((batch.targets != ignored_target).sum().item<std::int64_t>());
  const auto& projection = model->projection().weight;
  expected += 3 * 2 * targets * static_cast<double>(projection.numel());
  EXPECT_GT(counted.products, expected);         // and attention
  EXPECT_LT(counted.products, 1.25 * expected);  // which is little in nine tokens
  EXPECT_GT(counted.made, 0);
  EXPECT_GT(counted.calls, 10);
}

TEST(planning, takes_no_memory_for_weights_and_gives_no_values) {
  const auto of = llama();
  const nn::ParametersOn where(at::kMeta);
  Shapes shapes(of.weights);
  const auto model = build(of, shapes);

  for (const auto& parameter : model->module().parameters())
    EXPECT_EQ(parameter.storage().data_ptr().get(), nullptr);
  EXPECT_THROW(model->projection().weight.sum().item<float>(), c10::Error);
  EXPECT_THROW((void)model->projection().weight.const_data_ptr<float>(), c10::Error);
}

TEST(planning, ends_with_its_scope) {
  {
    const nn::ParametersOn where(at::kMeta);
    EXPECT_TRUE(nn::Linear(2, 2, false).weight.is_meta());
  }
  EXPECT_TRUE(nn::Linear(2, 2, false).weight.is_cpu());
}

TEST(shapes, keep_the_types_that_reading_keeps) {
  tiny::Random weights;
  for (const char* stored : {"F32", "BF16", "I8", "Q4_1"})
    weights.infos.push_back({stored, {2, 3}, stored, 0});
  Shapes shapes(weights);

  EXPECT_EQ(shapes.read("F32").scalar_type(), at::kFloat);
  EXPECT_EQ(shapes.read("BF16").scalar_type(), at::kBFloat16);
  EXPECT_EQ(shapes.read("I8").scalar_type(), at::kChar);
  EXPECT_EQ(shapes.read("Q4_1").scalar_type(), at::kFloat);
  EXPECT_EQ(shapes.read("Q4_1").sizes().vec(), (std::vector<std::int64_t>{2, 3}));
}

}  // namespace
