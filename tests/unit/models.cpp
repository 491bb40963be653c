// What the model plugins are made of, and what parity with transformers does not show.
#include <attune/error.hpp>
#include <attune/loss.hpp>
#include <attune/nn.hpp>
#include <attune/parameter.hpp>
#include <attune/plugin.hpp>
#include <gmock/gmock.h>
#include <torch/torch.h>

#include <nlohmann/json.hpp>

#include "errors.hpp"
#include "nn/activations.hpp"
#include "strategy/strategies.hpp"
#include "registry/loader.hpp"
#include "tiny_models.hpp"
#include "weights/describe.hpp"
#include "weights/licence.hpp"
#include "weights/shapes.hpp"

namespace {

using namespace attune;
using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using tiny::efficientnet_config;
using tiny::pictures_of;
using tiny::registry;

/// Small random tensors; those of norms are positive.
struct Random final : WeightSource {
  Random& add(const std::string& name, std::vector<std::int64_t> shape) {
    infos.push_back({name, shape, "F32", 0});
    values[name] = torch::rand(shape) * 0.3 + (name.ends_with("running_var") ? 0.5 : 0.0);
    return *this;
  }
  Random& add_layer(const std::string& name, std::vector<std::int64_t> shape,
                    std::int64_t outputs) {
    return add(name + ".weight", std::move(shape)).add(name + ".bias", {outputs});
  }
  const std::vector<TensorInfo>& tensors() const override { return infos; }
  at::Tensor read(const std::string& name) override { return values.at(name); }
  std::vector<TensorInfo> infos;
  std::map<std::string, at::Tensor> values;
};

std::shared_ptr<Model> build(const std::string& plugin, const json& config, Random weights,
                             std::vector<std::string> labels = {},
                             const std::map<std::string, OptionValue>& values = {}) {
  ModelContext context{config, weights, std::move(labels)};
  const auto& entry = registry().find(Kind::model, plugin);
  const auto options = entry.defaults();
  for (const auto& option : entry.schema.options)
    if (values.contains(option.name)) option.set(options.get(), values.at(option.name));
  return std::static_pointer_cast<Model>(entry.build(options.get(), &context));
}

double furthest(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

// ---- gpt2

Random gpt2_weights() {
  torch::manual_seed(1);
  Random weights;
  weights.add("wte.weight", {31, 8}).add("wpe.weight", {12, 8});
  for (const char* norm : {"h.0.ln_1", "h.0.ln_2", "ln_f"}) weights.add_layer(norm, {8}, 8);
  weights.add_layer("h.0.attn.c_attn", {8, 24}, 24).add_layer("h.0.attn.c_proj", {8, 8}, 8);
  return weights.add_layer("h.0.mlp.c_fc", {8, 32}, 32).add_layer("h.0.mlp.c_proj", {32, 8}, 8);
}

const json gpt2_config = {{"model_type", "gpt2"}, {"n_embd", 8},       {"n_layer", 1},
                          {"n_head", 2},          {"n_positions", 12}, {"vocab_size", 31}};

TEST(gpt2, holds_its_matrices_as_other_models_do_and_stores_them_as_its_files_do) {
  auto weights = gpt2_weights();
  const auto model = build("gpt2", gpt2_config, weights);
  const auto parameters = model->module().named_parameters();

  EXPECT_TRUE(parameters["transformer.h.0.attn.c_attn.weight"].equal(
      weights.read("h.0.attn.c_attn.weight").t()));
  for (const auto& [name, tensor] : nn::stored_tensors(model->module()))
    EXPECT_TRUE(tensor.equal(weights.read(name.substr(std::string("transformer.").size()))))
        << name;
}

TEST(gpt2, refuses_what_it_would_compute_wrongly) {
  const auto error_with = [](const json& change) {
    json config = gpt2_config;
    config.update(change);
    return error_of([&] { build("gpt2", config, gpt2_weights()); });
  };

  EXPECT_THAT(error_with({{"activation_function", "relu"}}),
              HasSubstr("activation_function \"relu\""));
  EXPECT_THAT(error_with({{"add_cross_attention", true}}), HasSubstr("add_cross_attention"));
  EXPECT_THAT(error_with({{"n_head", 3}}), HasSubstr("3 attention heads"));
  EXPECT_THAT(error_with({{"n_embd", 16}}), HasSubstr("wte.weight is [31, 8], not [31, 16]"));
}

// ---- bert and its kin

Random roberta_weights() {
  torch::manual_seed(2);
  Random weights;
  weights.add("roberta.embeddings.word_embeddings.weight", {31, 8})
      .add("roberta.embeddings.position_embeddings.weight", {12, 8})
      .add("roberta.embeddings.token_type_embeddings.weight", {1, 8});
  weights.add_layer("roberta.embeddings.LayerNorm", {8}, 8);
  const std::string block = "roberta.encoder.layer.0.";
  for (const char* name : {"attention.self.query", "attention.self.key", "attention.self.value",
                           "attention.output.dense"})
    weights.add_layer(block + name, {8, 8}, 8);
  for (const char* name : {"attention.output.LayerNorm", "output.LayerNorm"})
    weights.add_layer(block + name, {8}, 8);
  return weights.add_layer(block + "intermediate.dense", {16, 8}, 16)
      .add_layer(block + "output.dense", {8, 16}, 8);
}

const json roberta_config = {
    {"model_type", "roberta"},       {"hidden_size", 8},         {"intermediate_size", 16},
    {"num_hidden_layers", 1},        {"num_attention_heads", 2}, {"vocab_size", 31},
    {"max_position_embeddings", 12}, {"type_vocab_size", 1},     {"pad_token_id", 1}};

TEST(roberta, has_room_for_what_its_positions_leave) {
  const auto model = build("roberta", roberta_config, roberta_weights(), {"no", "yes"});

  EXPECT_EQ(model->spec().context, 10);
  EXPECT_THAT(error_of([&] { model->features(pack({torch::zeros({11}, at::kLong)})); }),
              HasSubstr("context of 10"));
}

TEST(roberta, names_the_head_that_an_adapter_saves) {
  const auto head = [](const char* name) {
    return build("roberta", roberta_config, roberta_weights(), {"no", "yes"},
                 {{"head", std::string(name)}});
  };

  EXPECT_THAT(head("classification")->head_modules(), ElementsAre("classifier"));
  EXPECT_TRUE(
      head("classification")->module().named_parameters().contains("classifier.dense.weight"));
  EXPECT_THAT(head("token_classification")->head_modules(), ElementsAre("classifier"));
  EXPECT_EQ(head("token_classification")->spec().outputs, 2);
  EXPECT_TRUE(head("embedding")->head_modules().empty());
}

TEST(encoders, give_embeddings_of_length_one_that_their_projection_leaves_as_they_are) {
  const auto model =
      build("roberta", roberta_config, roberta_weights(), {}, {{"head", std::string("embedding")}});
  const auto batch = pack({torch::tensor({3, 4, 5}), torch::tensor({6, 7})});
  const torch::NoGradGuard no_grad;

  const auto features = model->features(batch);

  EXPECT_EQ(features.sizes(), (std::vector<std::int64_t>{2, 8}));
  EXPECT_LT(furthest(features.norm(2, 1), torch::ones(2)), 1e-6);
  EXPECT_TRUE(model->logits(batch).equal(features));
  EXPECT_EQ(model->spec().task, Task::embedding);
}

TEST(encoders, classify_every_token_of_every_sample) {
  const auto model = build("roberta", roberta_config, roberta_weights(), {"O", "PER", "LOC"},
                           {{"head", std::string("token_classification")}});
  auto batch = pack({torch::tensor({3, 4, 5}), torch::tensor({6, 7})});
  batch.targets = torch::tensor({0, 1, -100, 2, -100});

  const auto loss = supervised_loss(model->features(batch), model->projection(), batch.targets);

  EXPECT_EQ(loss.count, 3);
  EXPECT_EQ(model->logits(batch).sizes(), (std::vector<std::int64_t>{5, 3}));
}

// ---- pictures

Random efficientnet_weights() {
  torch::manual_seed(3);
  Random weights;
  const auto norm = [&](const std::string& name, std::int64_t width) {
    weights.add_layer(name, {width}, width)
        .add(name + ".running_mean", {width})
        .add(name + ".running_var", {width});
  };
  weights.add("embeddings.convolution.weight", {32, 3, 3, 3});
  norm("embeddings.batchnorm", 32);
  weights.add("encoder.blocks.0.depthwise_conv.depthwise_conv.weight", {32, 1, 3, 3})
      .add("encoder.blocks.0.projection.project_conv.weight", {16, 32, 1, 1})
      .add("encoder.top_conv.weight", {24, 16, 1, 1});
  norm("encoder.blocks.0.depthwise_conv.depthwise_norm", 32);
  norm("encoder.blocks.0.projection.project_bn", 16);
  norm("encoder.top_bn", 24);
  return weights;
}

TEST(efficientnet, keeps_its_statistics_in_training_and_no_picture_sees_another) {
  const auto model =
      build("efficientnet", efficientnet_config, efficientnet_weights(), {"no", "yes"});
  const auto pixels = torch::randint(256, {4, 3, 8, 8}, at::kByte);
  const auto before =
      model->module().named_buffers()["efficientnet.encoder.top_bn.running_mean"].clone();
  const torch::NoGradGuard no_grad;

  const auto together = model->logits(ForwardContext(pictures_of(pixels), Phase::training));
  const auto alone =
      model->logits(ForwardContext(pictures_of(pixels.narrow(0, 1, 1)), Phase::training));

  EXPECT_LT(furthest(together.narrow(0, 1, 1), alone), 1e-5);
  EXPECT_TRUE(
      model->module().named_buffers()["efficientnet.encoder.top_bn.running_mean"].equal(before));
  EXPECT_EQ(nn::stored_tensors(model->module()).size(),
            model->module().parameters().size() + model->module().buffers().size());
}

TEST(efficientnet, scales_pictures_to_what_the_run_asks_for) {
  const auto model = build("efficientnet", efficientnet_config, efficientnet_weights(),
                           {"no", "yes"}, {{"size", std::int64_t{16}}});

  ForwardContext context(pictures_of(torch::zeros({1, 1, 28, 28}, at::kByte)));
  EXPECT_EQ(model->embed(context).size(2), 8);
  EXPECT_EQ(model->config()["image_size"], 16);
}

TEST(pictures, are_refused_where_they_do_not_fit) {
  const auto scale = nn::picture_scale({{"image_size", 8}}, {0.5}, {0.5});

  EXPECT_THAT(error_of([&] { nn::pictures(Batch(), scale, at::kFloat); }),
              HasSubstr("has no images"));
  EXPECT_THAT(error_of([&] {
                nn::pictures(pictures_of(torch::zeros({1, 4, 8, 8}, at::kByte)), scale, at::kFloat);
              }),
              HasSubstr("4 channels, but the model needs 3"));
  EXPECT_THAT(error_of([&] { nn::picture_scale({{"image_size", {8, 9}}}, {0.5}, {0.5}); }),
              HasSubstr("must be square"));
  EXPECT_THAT(error_of([&] {
                nn::picture_scale({{"image_size", 8}, {"image_std", {0.1, 0.0, 0.1}}}, {0.5},
                                  {0.5});
              }),
              HasSubstr("image_std"));
}

// ---- layers

TEST(convolution, equals_libtorch_s_own) {
  nn::Conv2d layer(4, 6, {.kernel = 3, .stride = 2, .padding = 1, .groups = 2, .with_bias = true});
  const torch::NoGradGuard no_grad;
  for (auto& parameter : layer.parameters()) parameter.normal_();
  const auto x = torch::randn({2, 4, 7, 5});

  ForwardContext context;
  EXPECT_TRUE(layer.forward(x, context).equal(at::conv2d(x, layer.weight, layer.bias, 2, 1, 1, 2)));
}

TEST(a_soft_cap, changes_loss_and_gradients_as_autograd_has_it) {
  torch::manual_seed(4);
  nn::Linear head(6, 9, false);
  head.softcap = 1.5;
  {
    const torch::NoGradGuard no_grad;
    head.weight.normal_();
  }
  const auto targets = torch::tensor({1, -100, 8, 3});
  const auto gradients_of = [&](auto&& loss_of) {
    const auto x = torch::linspace(-2, 2, 24).view({4, 6}).requires_grad_(true);
    head.weight.mutable_grad() = at::Tensor();
    const at::Tensor loss = loss_of(x);
    loss.backward();
    return std::tuple{loss.detach(), x.grad(), head.weight.grad().clone()};
  };

  const auto plain = gradients_of([&](const at::Tensor& x) {
    return at::cross_entropy_loss(1.5 * (at::linear(x, head.weight) / 1.5).tanh(), targets, {},
                                  at::Reduction::Sum);
  });
  const auto fused =
      gradients_of([&](const at::Tensor& x) { return cross_entropy(x, head, targets).sum; });
  const auto by_row =
      gradients_of([&](const at::Tensor& x) { return row_losses(x, head, targets).nll.sum(); });

  for (const auto& ours : {fused, by_row}) {
    EXPECT_LT(furthest(std::get<0>(ours), std::get<0>(plain)), 1e-5);
    EXPECT_LT(furthest(std::get<1>(ours), std::get<1>(plain)), 1e-5);
    EXPECT_LT(furthest(std::get<2>(ours), std::get<2>(plain)), 1e-5);
  }
}

TEST(modules, are_found_by_their_dotted_names_and_made_once) {
  torch::nn::Module root;
  nn::register_at(root, "a.b.first", std::make_shared<nn::Linear>(2, 2, false));
  nn::register_at(root, "a.b.second", std::make_shared<nn::Linear>(2, 2, false));

  EXPECT_EQ(nn::module_at(root, "a.b").children().size(), 2u);
  EXPECT_TRUE(root.named_parameters().contains("a.b.second.weight"));
}

// ---- memory

/// The bytes that a pass keeps, of the model with weights and of the one that is planned.
std::pair<std::size_t, std::size_t> kept(const std::string& plugin, const json& config,
                                         const Random& weights, Batch batch, bool all = true) {
  const auto bytes = [&](Model& model) {
    for (auto& parameter : model.module().parameters()) parameter.requires_grad_(all);
    model.projection().weight.requires_grad_(true);
    return nn::activation_bytes(model, batch);
  };
  const auto measured = bytes(*build(plugin, config, weights, {"no", "yes"}));
  for (auto* tensor : {&batch.tokens, &batch.positions})
    if (tensor->defined()) *tensor = tensor->to(at::kMeta);
  for (auto& [name, column] : batch.columns) column = column.to(at::kMeta);
  const nn::ParametersOn where(at::kMeta);
  Shapes shapes(weights);
  ModelContext context{config, shapes, {"no", "yes"}};
  const auto& entry = registry().find(Kind::model, plugin);
  return {measured,
          bytes(*std::static_pointer_cast<Model>(entry.build(entry.defaults().get(), &context)))};
}

TEST(activations, are_planned_as_they_are_measured) {
  const auto tokens = pack({torch::ones({8}, at::kLong), torch::ones({5}, at::kLong)});
  const auto pictures = pictures_of(torch::zeros({4, 3, 8, 8}, at::kByte));

  const auto [gpt2, planned_gpt2] = kept("gpt2", gpt2_config, gpt2_weights(), tokens);
  const auto [roberta, planned_roberta] =
      kept("roberta", roberta_config, roberta_weights(), tokens);
  const auto [efficientnet, planned_efficientnet] =
      kept("efficientnet", efficientnet_config, efficientnet_weights(), pictures);

  EXPECT_GT(gpt2, 13u * 8 * 4 * 5);
  EXPECT_EQ(planned_gpt2, gpt2);
  EXPECT_EQ(planned_roberta, roberta);
  EXPECT_EQ(planned_efficientnet, efficientnet);
}

TEST(activations, are_few_below_what_is_trained) {
  const auto bytes = [](bool all) {
    return kept("efficientnet", efficientnet_config, efficientnet_weights(),
                pictures_of(torch::zeros({4, 3, 8, 8}, at::kByte)), all)
        .second;
  };

  EXPECT_LT(bytes(false), 4u * 24 * 4 + 1000);
  EXPECT_GT(bytes(true), 10 * bytes(false));
}

// ---- licences and architectures

ModelFiles files_with(const std::string& licence, const std::string& type = "llama") {
  ModelFiles files;
  files.path = "models/some";
  files.licence = licence;
  files.config = {{"model_type", type}};
  return files;
}

TEST(licence, is_accepted_when_the_run_allows_it_or_asks_for_none) {
  EXPECT_EQ(error_of([] { check_licence(files_with(""), {}); }), "no error");
  EXPECT_EQ(error_of([] { check_licence(files_with("Apache-2.0"), {"mit", "apache-2.0"}); }),
            "no error");
  EXPECT_THAT(error_of([] { check_licence(files_with("cc-by-nc-4.0"), {"mit"}); }),
              AllOf(HasSubstr("models/some"), HasSubstr("'cc-by-nc-4.0'"), HasSubstr("(mit)")));
  EXPECT_THAT(error_of([] { check_licence(files_with(""), {"mit"}); }),
              HasSubstr("states no licence"));
}

TEST(licence, of_a_known_name_comes_with_its_terms) {
  EXPECT_THAT(usage_terms("CC-BY-NC-4.0"), HasSubstr("no commercial use"));
  EXPECT_THAT(usage_terms("cc-by-4.0"),
              AllOf(HasSubstr("attribution"), testing::Not(HasSubstr("commercial"))));
  EXPECT_THAT(usage_terms("llama3.1"), HasSubstr("Meta"));
  EXPECT_EQ(usage_terms("my own"), "");
}

TEST(architecture, that_no_plugin_runs_is_refused_with_those_that_are_known) {
  EXPECT_EQ(error_of([] { check_architecture(files_with("mit"), registry()); }), "no error");
  EXPECT_THAT(error_of([] { check_architecture(files_with("mit", "t5"), registry()); }),
              AllOf(HasSubstr("'t5'"), HasSubstr("bert, distilbert, efficientnet, gemma2, gpt2, "
                                                 "llama, mistral, qwen2, qwen3, roberta, vit")));
}

}  // namespace
