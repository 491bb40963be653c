// The model and strategy plugins on tiny models made here.
#include <attune/linear.hpp>
#include <gmock/gmock.h>

#include "nn/generate.hpp"
#include "tiny_models.hpp"

namespace {

using namespace attune;
using namespace attune::tiny;
using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(llama, refuses_what_it_would_compute_wrongly) {
  const auto error_with = [](const json& change) {
    json config = llama_config;
    config.update(change);
    return error_of([&] { build_model("llama", config, llama_weights()); });
  };

  EXPECT_THAT(error_with({{"rope_scaling", {{"rope_type", "longrope"}}}}),
              AllOf(HasSubstr("rope_scaling"), HasSubstr("longrope")));
  EXPECT_THAT(error_with({{"rope_parameters", {{"rope_type", "yarn"}}}}),
              HasSubstr("lacks 'factor'"));
  EXPECT_THAT(error_with({{"hidden_act", "gelu"}}), HasSubstr("hidden_act \"gelu\""));
  EXPECT_THAT(error_with({{"model_type", "bert"}}), HasSubstr("plugin = \"bert\""));
  EXPECT_THAT(error_with({{"num_key_value_heads", 3}}),
              HasSubstr("4 attention heads, which are not divisible by its 3"));
  EXPECT_THAT(error_with({{"vocab_size", 32}}),
              HasSubstr("model.embed_tokens.weight is [31, 16], not [32, 16]"));
  EXPECT_THAT(error_with({{"tie_word_embeddings", false}}), HasSubstr("lm_head.weight"));
  const json plain{{"rope_type", "default"}, {"rope_theta", 1e4}};
  EXPECT_THAT(
      error_with({{"rope_scaling", {{"rope_type", "longrope"}}}, {"rope_parameters", plain}}),
      HasSubstr("rope_scaling of type \"longrope\""));
  EXPECT_EQ(error_with({{"rope_scaling", json::object()}, {"rope_parameters", plain}}), "no error");
  EXPECT_EQ(error_with({{"rope_scaling", nullptr},
                        {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 1e4}}}}),
            "no error");
}

TEST(llama, refuses_a_sample_longer_than_its_context) {
  const auto model = llama();
  EXPECT_THAT(error_of([&] { model->features(batch_of({3, 25})); }),
              AllOf(HasSubstr("25 tokens"), HasSubstr("context of 24")));
}

TEST(llama, registers_a_tied_head_once) {
  const auto model = llama();
  EXPECT_FALSE(model->module().named_parameters().contains("lm_head.weight"));
  EXPECT_TRUE(model->projection().weight.is_same(
      model->module().named_parameters()["model.embed_tokens.weight"]));
}

TEST(model, goes_on_from_what_its_first_parts_made) {
  for (const auto& model : {llama(), bert()}) {
    auto batch = batch_of({3, 7, 1});
    const torch::NoGradGuard no_grad;
    const at::Tensor whole = model->features(batch);
    for (std::int64_t parts = 1; parts <= 3; ++parts) {
      batch.hidden = model->hidden_after(parts, batch);
      batch.hidden_parts = parts;
      EXPECT_EQ(batch.hidden.size(0), parts == 3 ? whole.size(0) : batch.length());
      batch.hidden.add_(1);
      batch.hidden_of = nullptr;
      EXPECT_TRUE(model->features(batch).equal(whole))
          << "those of another model, such as a student's, are not taken";
      batch.hidden_of = model.get();
      EXPECT_FALSE(model->features(batch).equal(whole));
      batch.hidden.sub_(1);
      EXPECT_TRUE(at::allclose(model->features(batch), whole, 1e-5, 1e-5)) << parts;
      batch.hidden = at::Tensor();
    }
  }
}

TEST(model, counts_the_parts_below_everything_trained) {
  const auto parts_below = [](Model& model, const std::string& trained) {
    for (auto& parameter : model.module().named_parameters())
      parameter.value().requires_grad_(parameter.key().find(trained) != std::string::npos);
    ForwardContext again(batch_of({3, 7}), Phase::training);
    again.recompute = true;
    const auto parts = model.frozen_parts(batch_of({3, 7}));
    EXPECT_EQ(model.frozen_parts(again), parts) << "also when blocks are computed again";
    return parts;
  };
  EXPECT_EQ(parts_below(*llama(), "embed_tokens"), 0);
  EXPECT_EQ(parts_below(*llama(), "layers.0.mlp.up_proj"), 0);
  EXPECT_EQ(parts_below(*llama(), "layers.1."), 1);
  EXPECT_EQ(parts_below(*llama(), "model.norm"), 2);
  EXPECT_EQ(parts_below(*bert(), "position_embeddings"), 0);
  EXPECT_EQ(parts_below(*bert(), "classifier"), 3);
}

TEST(generate, with_a_cache_equals_going_through_everything_again) {
  const auto model = llama();
  const torch::NoGradGuard no_grad;
  std::vector<std::int32_t> all = {3, 1, 4, 1, 5};
  for (int token = 0; token < 8; ++token) {
    const auto logits = model->logits(pack({torch::tensor(all, at::kInt)}));
    all.push_back(static_cast<std::int32_t>(logits[-1].argmax().item<std::int64_t>()));
  }
  std::vector<std::int32_t> seen;

  const auto tokens = nn::generate(*model, {3, 1, 4, 1, 5}, {.max_tokens = 8},
                                   [&](std::int32_t token) { return seen.push_back(token), true; });

  EXPECT_EQ(tokens, std::vector<std::int32_t>(all.begin() + 5, all.end()));
  EXPECT_EQ(seen, tokens);
}

TEST(generate, stops_at_a_stop_token_at_the_end_of_the_context_and_when_told) {
  const auto model = llama();
  const auto tokens = nn::generate(*model, {3, 1, 4}, {.max_tokens = 100});

  EXPECT_EQ(tokens.size(), 21u);
  const auto stopped = nn::generate(*model, {3, 1, 4}, {.max_tokens = 100, .stop = {tokens[2]}});
  EXPECT_LE(stopped.size(), 2u);
  EXPECT_EQ(nn::generate(*model, {3, 1, 4}, {.max_tokens = 100}, [](std::int32_t) { return false; })
                .size(),
            1u);
  EXPECT_THAT(error_of([&] { nn::generate(*model, {}, {}); }), HasSubstr("empty"));
}

TEST(generate, answers_several_prompts_as_it_answers_each_alone) {
  const auto model = llama();
  const std::vector<nn::Tokens> prompts = {
      {3, 1, 4, 1, 5}, {9}, {2, 7, 1}, {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5,
                                        8, 9, 7, 9, 3, 2, 3, 8, 4, 6}};
  // so that answers end at different times
  const auto stop = nn::generate(*model, prompts[1], {.max_tokens = 5}).at(3);
  for (const nn::GenerateOptions& options :
       {nn::GenerateOptions{.max_tokens = 12},
        {.max_tokens = 12, .stop = {stop}},
        {.max_tokens = 12, .temperature = 1, .top_p = 0.9, .seed = 5}}) {
    std::vector<nn::Tokens> alone;
    for (const auto& prompt : prompts) alone.push_back(nn::generate(*model, prompt, options));
    EXPECT_EQ(nn::generate_each(*model, prompts, options), alone);
    EXPECT_LT(alone.back().size(), 12u) << "the context ends";
  }
  EXPECT_TRUE(nn::generate_each(*model, {}, {}).empty());
}

TEST(generate, samples_the_same_from_the_same_seed_and_the_likeliest_from_a_small_nucleus) {
  const auto model = llama();
  const auto sampled = [&](std::uint64_t seed, double top_p) {
    return nn::generate(*model, {3, 1, 4},
                        {.max_tokens = 20, .temperature = 1.0, .top_p = top_p, .seed = seed});
  };

  EXPECT_EQ(sampled(1, 0.9), sampled(1, 0.9));
  EXPECT_NE(sampled(1, 1), sampled(2, 1));
  EXPECT_EQ(sampled(1, 1e-6), nn::generate(*model, {3, 1, 4}, {.max_tokens = 20}));
}

TEST(full, trains_every_parameter_in_groups_with_and_without_weight_decay) {
  const auto model = bert();
  const auto full = strategy("full");
  full->prepare(*model);

  const auto groups = full->groups(*model);

  EXPECT_EQ(trained_names(*model).size(), model->module().parameters().size());
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0].parameters.size() + groups[1].parameters.size(),
            model->module().parameters().size());
  for (auto& [name, tensor] : groups[1].parameters) EXPECT_EQ(tensor.dim(), 1) << name;
  EXPECT_EQ(groups[1].weight_decay_scale, 0);
}

TEST(freeze, trains_what_is_named_and_the_last_blocks_and_the_head) {
  const auto trained = [](std::map<std::string, OptionValue> values) {
    const auto model = bert();
    strategy("freeze", values)->prepare(*model);
    return trained_names(*model);
  };

  EXPECT_THAT(trained({{"train", Texts{"layer.1.attention.self.query.*"}}}),
              ElementsAre("bert.encoder.layer.1.attention.self.query.weight",
                          "bert.encoder.layer.1.attention.self.query.bias", "classifier.weight",
                          "classifier.bias"));
  EXPECT_THAT(trained({{"freeze", Texts{"*"}}}),
              ElementsAre("classifier.weight", "classifier.bias"));
  EXPECT_THAT(trained({{"freeze", Texts{"bert.*"}}, {"head", false}}),
              ElementsAre("classifier.weight", "classifier.bias"));
  EXPECT_THAT(trained({{"train", Texts{"embeddings.LayerNorm.bias"}}, {"head", false}}),
              ElementsAre("bert.embeddings.LayerNorm.bias"));
  const auto last =
      trained({{"last_blocks", std::int64_t{1}}, {"freeze", Texts{"bias"}}, {"head", false}});
  EXPECT_EQ(last.size(), 8u);
  for (const auto& name : last)
    EXPECT_TRUE(name.starts_with("bert.encoder.layer.1.") && name.ends_with("weight")) << name;
}

TEST(freeze, says_which_name_matches_nothing_and_how_many_blocks_there_are) {
  const auto error_with = [](std::map<std::string, OptionValue> values) {
    return error_of([&] { strategy("freeze", values)->prepare(*bert()); });
  };

  EXPECT_THAT(error_with({{"train", Texts{"clasifier.weight"}}}),
              AllOf(HasSubstr("strategy.train"), HasSubstr("'classifier.weight'")));
  EXPECT_THAT(error_with({{"freeze", Texts{"embedings.*"}}}), HasSubstr("strategy.freeze"));
  EXPECT_THAT(error_with({{"last_blocks", std::int64_t{3}}}), HasSubstr("the model has 2 blocks"));
}

TEST(lora, changes_nothing_at_first_and_trains_its_matrices_alone) {
  const auto model = llama();
  const auto batch = batch_of({5, 3});
  const auto before = model->logits(batch);
  const auto lora = strategy("lora", {{"rank", std::int64_t{4}}});
  lora->prepare(*model);

  EXPECT_EQ((model->logits(batch) - before).abs().max().item<double>(), 0);
  const auto names = trained_names(*model);
  EXPECT_EQ(names.size(), 2u * 7u * 2u);
  for (const auto& name : names)
    EXPECT_TRUE(name.ends_with(".lora.A") || name.ends_with(".lora.B")) << name;
  EXPECT_EQ(lora->state(*model).size(), names.size());
}

TEST(lora, writes_what_peft_reads) {
  const auto model = bert();
  const auto lora = strategy(
      "lora", {{"rank", std::int64_t{4}}, {"targets", Texts{"query", "layer.1.output.dense"}}});
  lora->prepare(*model);

  const auto adapter = lora->export_adapter(*model);

  ASSERT_TRUE(adapter);
  const auto config = json::parse(adapter->config);
  EXPECT_EQ(config["peft_type"], "LORA");
  EXPECT_EQ(config["task_type"], "SEQ_CLS");
  EXPECT_EQ(config["modules_to_save"], json::array({"classifier"}));
  EXPECT_EQ(config["target_modules"], json::array({"bert.encoder.layer.1.output.dense", "query"}));
  std::map<std::string, at::Tensor> tensors(adapter->tensors.begin(), adapter->tensors.end());
  EXPECT_EQ(tensors.size(), 3u * 2u + 2u);
  EXPECT_TRUE(tensors.contains("base_model.model.classifier.weight"));
  EXPECT_EQ(tensors.at("base_model.model.bert.encoder.layer.1.output.dense.lora_A.weight").sizes(),
            (std::vector<std::int64_t>{4, 24}));
}

TEST(lora, refuses_targets_that_are_not_there_and_ranks_that_are_too_large) {
  const auto error_with = [](std::map<std::string, OptionValue> values) {
    return error_of([&] { strategy("lora", values)->prepare(*llama()); });
  };

  EXPECT_THAT(error_with({{"rank", std::int64_t{4}}, {"targets", Texts{"q_porj"}}}),
              AllOf(HasSubstr("strategy.targets"), HasSubstr("'q_proj'")));
  EXPECT_THAT(error_with({{"rank", std::int64_t{9}}}),
              AllOf(HasSubstr("strategy.rank is 9"), HasSubstr("8 x 16"), HasSubstr("at most 8")));
  EXPECT_THAT(error_with({{"targets", Texts{}}}), HasSubstr("strategy.targets is empty"));
}

TEST(lora, drops_inputs_while_training_alone) {
  const auto model = llama();
  strategy("lora", {{"rank", std::int64_t{4}}, {"dropout", 0.5}})->prepare(*model);
  const torch::NoGradGuard no_grad;
  for (auto& [name, parameter] : trainable(*model)) parameter.normal_();
  const auto batch = batch_of({6});

  EXPECT_FALSE(model->logits(ForwardContext(batch, Phase::training)).equal(model->logits(batch)));
  EXPECT_TRUE(model->logits(batch).equal(model->logits(batch)));
}

}  // namespace
