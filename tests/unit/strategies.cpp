// The strategy plugins, alone and listed together, on tiny models.
#include <attune/adapter.hpp>
#include <gmock/gmock.h>

#include "alone.hpp"
#include "nn/generate.hpp"
#include "strategy/peft_config.hpp"
#include "tiny_models.hpp"

namespace {

using namespace attune;
using namespace attune::tiny;
using nlohmann::json;
using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsSupersetOf;
using testing::Not;

const std::int64_t four = 4;

double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

/// What starts at zero or one would hide mistakes.
void randomise(Strategies& strategies, Model& model) {
  const torch::NoGradGuard no_grad;
  for (auto& [name, parameter] : strategies.state(model))
    parameter.add_(torch::randn_like(parameter) * 0.1);
}

Batch next_tokens(std::vector<std::int64_t> lengths) {
  auto batch = batch_of(std::move(lengths));
  batch.targets = batch.tokens.roll(-1);
  for (std::size_t end = 1; end < batch.starts.size(); ++end)
    batch.targets[batch.starts[end] - 1] = ignored_target;
  return batch;
}

Batch labelled(std::vector<std::int64_t> lengths) {
  auto batch = batch_of(std::move(lengths));
  batch.targets = torch::randint(3, {batch.samples()}, at::kLong);
  return batch;
}

Batch pairs() {
  auto batch = next_tokens({5, 4, 6, 3});
  batch.columns["chosen"] = torch::arange(4).remainder(2).eq(0);
  return batch;
}

// ---- A list of strategies

TEST(strategies, in_a_list_train_together) {
  const auto model = bert();
  const auto list =
      listed({{"lora", {{"rank", four}, {"targets", Texts{"query"}}}},
              {"freeze", {{"train", Texts{"embeddings.LayerNorm.*"}}, {"head", false}}}});
  list->prepare(*model);
  EXPECT_THAT(
      trained_names(*model),
      IsSupersetOf({"bert.embeddings.LayerNorm.weight",
                    "bert.encoder.layer.0.attention.self.query.lora.A", "classifier.weight"}));
  EXPECT_FALSE(list->export_adapter(*model)) << "an adapter would leave out what 'freeze' trains";
}

TEST(strategies, that_fight_or_do_nothing_are_refused) {
  const auto error_with = [](const std::vector<std::pair<std::string, Values>>& list) {
    return error_of([&] { listed(list)->prepare(*bert()); });
  };
  EXPECT_THAT(error_with({{"full", {}}, {"bitfit", {}}}),
              HasSubstr("strategies 'full' and 'bitfit' both train bert."));
  EXPECT_THAT(error_with({{"full", {}}, {"focal", {}}, {"label_smoothing", {}}}),
              HasSubstr("'focal' and 'label_smoothing' both define the loss"));
  EXPECT_THAT(error_with({{"llrd", {}}}),
              AllOf(HasSubstr("'llrd' trains no parameters"), HasSubstr("[[strategy]]")));
  EXPECT_THAT(error_with({{"focal", {}}, {"llrd", {}}}),
              HasSubstr("the strategies train no parameters"));
  EXPECT_THAT(error_with({{"full", {}}, {"quantize", {}}}),
              AllOf(HasSubstr("'full' trains"), HasSubstr("quantized")));
  EXPECT_THAT(error_with({{"prompt", {}}}), HasSubstr("is for decoders"));
  EXPECT_THAT(
      error_of([] {
        listed({{"prefix", {{"tokens", four}}}, {"prompt", {{"tokens", four}}}})->prepare(*llama());
      }),
      HasSubstr("virtual tokens"));
  EXPECT_THAT(error_of([] { strategy("linear_probe")->prepare(*llama()); }),
              HasSubstr("token embedding"));
  EXPECT_THAT(error_of([] { strategy("bitfit")->prepare(*llama()); }), HasSubstr("norms = true"));
  EXPECT_THAT(error_of([] {
                listed({{"lora", {{"rank", four}}}, {"class_weights", {}}})->prepare(*llama());
              }),
              HasSubstr("is for classifiers"));
}

TEST(strategies, start_from_an_adapter_of_the_same_form_alone) {
  const auto first = llama();
  const auto second = llama();
  const auto ours = strategy("lora", {{"rank", four}});
  const auto theirs = strategy("lora", {{"rank", four}});
  ours->prepare(*first);
  theirs->prepare(*second);
  randomise(*ours, *first);
  const auto batch = batch_of({6});
  theirs->load_adapter(*second, *ours->export_adapter(*first), "folder");
  EXPECT_EQ(difference(first->logits(batch), second->logits(batch)), 0);

  const auto error_with = [&](const std::string& plugin, Values values) {
    return error_of([&] {
      const auto model = llama();
      const auto other = strategy(plugin, std::move(values));
      other->prepare(*model);
      other->load_adapter(*model, *ours->export_adapter(*first), "folder");
    });
  };
  EXPECT_THAT(error_with("lora", {{"rank", std::int64_t{2}}}),
              AllOf(HasSubstr("folder: is an adapter with different options"),
                    HasSubstr("r is 4 there and 2 here")));
  EXPECT_THAT(error_with("lora", {{"rank", four}, {"targets", Texts{"q_proj"}}}),
              HasSubstr("does not have"));
  EXPECT_THAT(error_with("ia3", {}), HasSubstr("peft_type"));
  EXPECT_THAT(error_with("full", {}), HasSubstr("produce a whole model"));
  EXPECT_THAT(error_with("lora", {{"rank", four}, {"init", std::string("pissa")}}),
              HasSubstr("initialisation"));
}

/// What a LoRA configuration of PEFT with these keys is answered, by a run of the same rank.
std::string answer_to(const json& more, const Values& values = {{"rank", four}}) {
  const auto model = llama();
  const auto ours = strategy("lora", values);
  ours->prepare(*model);
  auto adapter = *ours->export_adapter(*model);
  auto config = nlohmann::ordered_json::parse(adapter.config);
  config.update(nlohmann::ordered_json(more));
  adapter.config = config.dump();
  return error_of([&] { ours->load_adapter(*model, adapter, "folder"); });
}

TEST(adapters_of_peft, are_refused_where_a_key_means_what_attune_does_not_do) {
  for (const auto& [key, value] :
       std::map<std::string, json>{{"layer_replication", {{0, 2}, {1, 2}}},
                                   {"target_parameters", {"experts.down"}},
                                   {"alora_invocation_tokens", {1}},
                                   {"use_qalora", true},
                                   {"arrow_config", {{"top_k", 2}}},
                                   {"velora_config", {{"a", 1}}},
                                   {"kasa_config", {{"a", 1}}},
                                   {"use_bdlora", {{"a", 1}}},
                                   {"monteclora_config", {{"a", 1}}},
                                   {"megatron_config", {{"a", 1}}},
                                   {"of_a_later_version", 0.5}})
    EXPECT_THAT(answer_to({{key, value}}),
                AllOf(HasSubstr("folder: adapter_config.json has " + key), HasSubstr("merge")))
        << key;
  for (const auto& [key, value] : std::map<std::string, json>{{"layer_replication", nullptr},
                                                              {"lora_bias", false},
                                                              {"of_a_later_version", json::array()},
                                                              {"loftq_config", json::object()},
                                                              {"eva_config", {{"rho", 2}}},
                                                              {"qalora_group_size", 16},
                                                              {"megatron_core", "megatron.core"},
                                                              {"fan_in_fan_out", true},
                                                              {"lora_dropout", 0.3},
                                                              {"inference_mode", false},
                                                              {"init_lora_weights", "gaussian"},
                                                              {"peft_version", "9.9"}})
    EXPECT_EQ(answer_to({{key, value}}), "no error") << key;
}

TEST(adapters_of_peft, are_refused_where_the_start_has_changed_the_base) {
  for (const std::string init : {"pissa", "olora", "OLoRA"})
    EXPECT_THAT(answer_to({{"init_lora_weights", init}}),
                AllOf(HasSubstr("init_lora_weights"), HasSubstr("set strategy.init")))
        << init;
  for (const std::string init : {"pissa_niter_16", "corda", "loftq", "lora_ga", "new"})
    EXPECT_THAT(answer_to({{"init_lora_weights", init}, {"base_model_name_or_path", "some/base"}}),
                AllOf(HasSubstr("init_lora_weights is \"" + init), HasSubstr("from 'some/base'")))
        << init;
  EXPECT_THAT(
      answer_to({{"init_lora_weights", true}}, {{"rank", four}, {"init", std::string("olora")}}),
      HasSubstr("strategy.init = \"olora\" changes it"));
}

TEST(adapters_of_peft, have_the_modules_and_scales_of_their_patterns) {
  const auto config = [](const char* text) { return nlohmann::ordered_json::parse(text); };
  // The first that matches counts, at the end of a name after a dot.
  const auto patterns = config(
      R"({"r": 8, "lora_alpha": 16, "rank_pattern": {"z.*|q_proj": 4, "q_proj": 2, ".*": 1}, "alpha_pattern": {"^model\\.layers\\.1\\..*": 3}})");
  EXPECT_EQ(lora_scale(patterns, "model.layers.0.self_attn.q_proj"), (LoraScale{4, 4}));
  EXPECT_EQ(lora_scale(patterns, "model.layers.1.self_attn.xq_proj"), (LoraScale{1, 3}));
  EXPECT_EQ(lora_scale(config(R"({"use_rslora": true, "r": 4})"), "q"), (LoraScale{4, 4}));

  const std::string q0 = "model.layers.0.self_attn.q_proj";
  const std::string q1 = "model.layers.1.self_attn.q_proj";
  const auto adapted = [&](const char* text) {
    return std::pair(peft_adapts(config(text), q0), peft_adapts(config(text), q1));
  };
  const std::pair both(true, true);
  const std::pair none(false, false);
  const std::pair first(true, false);
  const std::pair second(false, true);
  EXPECT_EQ(adapted(R"({"target_modules": ["q_proj"]})"), both);
  EXPECT_EQ(adapted(R"({"target_modules": ["proj"]})"), none);
  EXPECT_EQ(adapted(R"({"target_modules": "q_proj"})"), none);
  EXPECT_EQ(adapted(R"({"target_modules": ".*0.*q_proj"})"), first);
  EXPECT_EQ(
      adapted(
          R"({"target_modules": "all-linear", "exclude_modules": ["layers.0.self_attn.q_proj"]})"),
      second);
  EXPECT_EQ(adapted(R"({"target_modules": ["q_proj"], "exclude_modules": ".*"})"), none);
  EXPECT_EQ(adapted(R"({"target_modules": ["q_proj"], "layers_to_transform": 1})"), second);
  EXPECT_EQ(
      adapted(
          R"({"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": ["h", "layers"]})"),
      first);
  EXPECT_EQ(
      adapted(
          R"({"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "h"})"),
      none);
  EXPECT_EQ(adapted(R"({"target_modules": ["q_proj"], "layers_to_transform": []})"), both);
  EXPECT_EQ(adapted(R"({"target_modules": ["q_proj"], "modules_to_save": ["layers.0"]})"), second);
  EXPECT_THAT(error_of([&] { adapted(R"({"target_modules": "q_proj("})"); }),
              AllOf(HasSubstr("target_modules"), HasSubstr("does not compile")));
}

TEST(adapters_of_peft, are_told_the_patterns_that_differ_for_a_layer_alone) {
  const json alike{{".*q_proj", 2}};
  const json other{{"q_proj", 3}};
  const Values values{{"rank", four},
                      {"targets", Texts{"q_proj"}},
                      {"rank_pattern", attune::NumberMap{{"q_proj", 2}}}};
  EXPECT_EQ(answer_to({{"rank_pattern", alike}}, values), "no error");
  EXPECT_THAT(answer_to({{"rank_pattern", alike}, {"lora_alpha", 1}}, values),
              AllOf(HasSubstr("lora_alpha is 1 there"), Not(HasSubstr("rank_pattern"))));
  EXPECT_THAT(answer_to({{"rank_pattern", other}}, values),
              HasSubstr("rank_pattern is {\"q_proj\":3} there and {\"q_proj\":2} here"));
}

TEST(adapters_of_peft, of_other_kinds_and_with_embeddings_are_refused_by_name) {
  EXPECT_THAT(answer_to({{"peft_type", "BONE"}}),
              AllOf(HasSubstr("peft_type is \"BONE\""), HasSubstr("IA3")));
  EXPECT_THAT(answer_to({{"peft_type", "IA3"}}), HasSubstr("strategy.plugin = \"ia3\""));
  const auto model = llama();
  const auto ours = strategy("lora", {{"rank", four}});
  ours->prepare(*model);
  auto adapter = *ours->export_adapter(*model);
  adapter.tensors.emplace_back("base_model.model.model.embed_tokens.lora_embedding_A",
                               at::zeros({4, 31}));
  EXPECT_THAT(error_of([&] { ours->load_adapter(*model, adapter, "folder"); }),
              HasSubstr("a low-rank delta of an embedding"));
}

// ---- What is trained

TEST(llrd, slows_lower_blocks) {
  const auto model = bert();
  const auto list = listed({{"full", {}}, {"llrd", {{"decay", 0.5}}}});
  list->prepare(*model);
  std::map<std::string, double> scale;
  for (const auto& group : list->groups(*model))
    for (const auto& [name, parameter] : group.parameters) scale[name] = group.learning_rate_scale;
  EXPECT_EQ(scale.size(), trained_names(*model).size());
  EXPECT_EQ(scale["classifier.weight"], 1);
  EXPECT_EQ(scale["bert.encoder.layer.1.output.dense.bias"], 0.5);
  EXPECT_EQ(scale["bert.encoder.layer.0.output.dense.weight"], 0.25);
  EXPECT_EQ(scale["bert.embeddings.word_embeddings.weight"], 0.125);
}

TEST(gradual_unfreezing, begins_with_the_head_and_goes_down) {
  const auto model = bert();
  const auto list =
      listed({{"full", {}}, {"gradual_unfreezing", {{"every_steps", std::int64_t{10}}}}});
  list->prepare(*model);
  const auto all = trained_names(*model).size();
  Alone run;
  list->begin(*model, run.context);
  list->on_epoch(*model, 0, 0);
  list->on_step(*model, 0);
  EXPECT_THAT(trained_names(*model), ElementsAre("classifier.weight", "classifier.bias"));
  list->on_step(*model, 10);
  EXPECT_THAT(trained_names(*model),
              AllOf(testing::Contains("bert.encoder.layer.1.output.dense.bias"),
                    Not(testing::Contains("bert.encoder.layer.0.output.dense.bias"))));
  list->on_step(*model, 39);
  EXPECT_EQ(trained_names(*model).size(), all);
  EXPECT_EQ(list->state(*model).size(), all) << "a checkpoint holds what is frozen for now";
}

TEST(lora, plus_lets_b_learn_faster) {
  const auto model = llama();
  const auto list = strategy("lora", {{"rank", four}, {"b_learning_rate", 16.0}});
  list->prepare(*model);
  const auto groups = list->groups(*model);
  ASSERT_EQ(groups.size(), 2u);
  for (const auto& group : groups)
    for (const auto& [name, parameter] : group.parameters)
      EXPECT_EQ(group.learning_rate_scale, name.ends_with("lora.B") ? 16 : 1) << name;
}

TEST(lora, takes_other_ranks_biases_and_modules_as_asked) {
  const auto model = bert();
  const auto list = strategy("lora", {{"rank", four},
                                      {"targets", Texts{"query", "value"}},
                                      {"rank_pattern", NumberMap{{"layer.1.*query", 2}}},
                                      {"bias", std::string("all")},
                                      {"save", Texts{"embeddings.LayerNorm"}}});
  list->prepare(*model);
  const auto names = trained_names(*model);
  EXPECT_THAT(names, IsSupersetOf({"bert.embeddings.LayerNorm.weight",
                                   "bert.encoder.layer.0.intermediate.dense.bias"}));
  const auto adapter = *list->export_adapter(*model);
  const auto config = json::parse(adapter.config);
  EXPECT_EQ(config["rank_pattern"], (json{{"layer\\.1\\..*query", 2}}));
  EXPECT_EQ(config["modules_to_save"], (json{"bert.embeddings.LayerNorm", "classifier"}));
  std::set<std::string> tensors;
  for (const auto& [name, tensor] : adapter.tensors)
    EXPECT_TRUE(tensors.insert(name).second) << name;
  EXPECT_THAT(
      tensors,
      IsSupersetOf({"base_model.model.bert.encoder.layer.0.attention.self.query.base_layer.bias",
                    "base_model.model.bert.encoder.layer.0.intermediate.dense.bias",
                    "base_model.model.bert.embeddings.LayerNorm.weight",
                    "base_model.model.classifier.weight"}));
  EXPECT_EQ(tensors.size(), names.size());
}

// ---- Adapters

struct AdapterCase {
  std::string name;
  std::vector<std::pair<std::string, Values>> list;
  bool starts_as_base = true;
  bool merges = true;
};

class Adapters : public testing::TestWithParam<AdapterCase> {};

TEST_P(Adapters, start_as_the_base_change_it_and_give_it_back_when_off) {
  const auto model = llama();
  const auto batch = batch_of({5, 1, 7});
  const torch::NoGradGuard no_grad;
  const auto base = model->logits(batch);
  const auto list = listed(GetParam().list);
  list->prepare(*model);
  if (GetParam().starts_as_base) {
    EXPECT_LT(difference(model->logits(batch), base), 2e-5);
  }
  randomise(*list, *model);
  const auto adapted = model->logits(batch);
  EXPECT_EQ(adapted.sizes(), base.sizes());
  EXPECT_GT(difference(adapted, base), 0.01);
  if (GetParam().name != "pissa") {
    EXPECT_LT(difference(model->logits(ForwardContext(batch).base_alone()), base), 2e-5);
  }
  EXPECT_EQ(difference(model->logits(batch), adapted), 0);
  if (GetParam().merges) {
    list->merge(*model);
    EXPECT_LT(difference(model->logits(batch), adapted), 1e-4);
    EXPECT_THAT(trained_names(*model), Each(Not(HasSubstr("lora"))));
  } else {
    EXPECT_THAT(error_of([&] { list->merge(*model); }), HasSubstr("cannot be merged"));
  }
}

TEST_P(Adapters, treat_every_sample_as_if_it_were_alone_and_generate_the_same_with_a_cache) {
  const auto model = llama();
  const auto list = listed(GetParam().list);
  list->prepare(*model);
  randomise(*list, *model);
  const torch::NoGradGuard no_grad;
  const auto batch = batch_of({5, 1, 7});
  std::vector<at::Tensor> alone;
  for (int sample = 0; sample < 3; ++sample)
    alone.push_back(model->logits(
        pack({batch.tokens.slice(0, batch.starts[sample], batch.starts[sample + 1])})));
  EXPECT_LT(difference(model->logits(batch), at::cat(alone)), 2e-5);

  std::vector<std::int32_t> all = {3, 1, 4, 1, 5};
  for (int token = 0; token < 6; ++token)
    all.push_back(static_cast<std::int32_t>(
        model->logits(pack({torch::tensor(all, at::kInt)}))[-1].argmax().item<std::int64_t>()));
  const nn::Tokens expected(all.begin() + 5, all.end());
  EXPECT_EQ(nn::generate(*model, {3, 1, 4, 1, 5}, {.max_tokens = 6}), expected);
  EXPECT_EQ(nn::generate_each(*model, {{2, 7}, {3, 1, 4, 1, 5}}, {.max_tokens = 6}).back(),
            expected);
}

TEST_P(Adapters, reach_every_parameter_with_a_gradient_also_when_blocks_are_computed_again) {
  std::vector<std::vector<at::Tensor>> gradients;
  std::vector<double> losses;
  for (const bool recompute : {false, true}) {
    torch::manual_seed(9);
    const auto model = llama();
    const auto list = listed(GetParam().list);
    list->prepare(*model);
    randomise(*list, *model);
    torch::manual_seed(10);
    auto context = training(next_tokens({5, 2, 7}));
    context.recompute = recompute;
    const auto loss = list->loss(*model, context);
    loss.sum.backward();
    losses.push_back(loss.sum.item<double>());
    gradients.emplace_back();
    for (const auto& [name, parameter] : trainable(*model)) {
      ASSERT_TRUE(parameter.grad().defined()) << name;
      gradients.back().push_back(parameter.grad());
    }
  }
  EXPECT_EQ(losses[0], losses[1]);
  for (std::size_t i = 0; i < gradients[0].size(); ++i)
    EXPECT_TRUE(gradients[0][i].equal(gradients[1][i])) << i << ": the same bits";
}

INSTANTIATE_TEST_SUITE_P(
    all, Adapters,
    testing::Values(
        AdapterCase{
            "rows",
            {{"lora", {{"rank", four}, {"token_rows", std::vector<std::int64_t>{4, 1, 3}}}}}},
        AdapterCase{"lora", {{"lora", {{"rank", four}, {"dropout", 0.1}}}}},
        AdapterCase{"lora_ia3", {{"lora", {{"rank", four}}}, {"ia3", {}}}},
        AdapterCase{"ia3_lora", {{"ia3", {}}, {"lora", {{"rank", four}}}}},
        AdapterCase{"dora", {{"lora", {{"rank", four}, {"dora", true}}}}},
        AdapterCase{"orthogonal",
                    {{"lora", {{"rank", four}, {"init", std::string("orthogonal")}}}}},
        AdapterCase{"pissa", {{"lora", {{"rank", four}, {"init", std::string("pissa")}}}}},
        AdapterCase{"ia3", {{"ia3", {}}}},
        AdapterCase{"vera", {{"vera", {{"rank", std::int64_t{8}}}}}},
        AdapterCase{"houlsby", {{"adapter", {{"width", four}}}}, true, false},
        AdapterCase{"pfeiffer",
                    {{"adapter", {{"width", four}, {"kind", std::string("pfeiffer")}}}},
                    true,
                    false},
        AdapterCase{"prefix", {{"prefix", {{"tokens", four}}}}, false, false},
        AdapterCase{"prompt", {{"prompt", {{"tokens", four}}}}, false, false},
        AdapterCase{"noisy", {{"lora", {{"rank", four}}}, {"neftune", {}}}}),
    [](const auto& info) { return info.param.name; });

// ---- Small changes in bfloat16

/// What the adapters of a layer add to its output.
at::Tensor change_of(nn::Linear& layer, const at::Tensor& x, const ForwardContext& context) {
  auto with = context;
  auto without = context.base_alone();
  return (layer.forward(x, with) - layer.forward(x, without)).to(at::kFloat);
}

/// The same model and adapters in float32 and bfloat16. The adapters change a thousandth, which is
/// less than bfloat16 resolves.
class SmallChanges : public testing::TestWithParam<AdapterCase> {
 protected:
  void SetUp() override {
    torch::manual_seed(4);
    const torch::NoGradGuard no_grad;
    narrow_->module().to(at::kBFloat16);
    const auto from = narrow_->module().parameters(), to = wide_->module().parameters();
    for (std::size_t i = 0; i < to.size(); ++i) to[i].copy_(from[i]);
    in_float_->prepare(*wide_);
    in_bfloat16_->prepare(*narrow_);
    const auto copies = in_bfloat16_->state(*narrow_);
    for (std::size_t i = 0; auto& [name, parameter] : in_float_->state(*wide_)) {
      parameter.add_(torch::randn_like(parameter) * 1e-3);
      copies[i++].second.copy_(parameter);
    }
  }

  /// Runs work(layer, its twin in bfloat16, input) for each layer that an adapter changes.
  template <class Work>
  void for_each_changed(const Work& work) {
    const auto layers = nn::linears(wide_->module()), twins = nn::linears(narrow_->module());
    int changed = 0;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const at::Tensor x = torch::randn({4096, layers[i].second->in()}).to(at::kBFloat16);
      const torch::NoGradGuard no_grad;
      const auto change = change_of(*layers[i].second, x.to(at::kFloat), context_);
      if (change.abs().max().item<double>() == 0) continue;
      const at::AutoGradMode with_gradients(true);
      SCOPED_TRACE(layers[i].first);
      work(*layers[i].second, *twins[i].second, x);
      ++changed;
    }
    EXPECT_GT(changed, 0);
  }

  std::shared_ptr<Model> wide_ = llama(), narrow_ = llama();
  std::shared_ptr<Strategies> in_float_ = listed(GetParam().list),
                              in_bfloat16_ = listed(GetParam().list);
  const ForwardContext context_{next_tokens({4096})};
};

/// Every element is rounded, but on average the change is there.
TEST_P(SmallChanges, are_kept_on_average_in_bfloat16) {
  for_each_changed([&](nn::Linear& layer, nn::Linear& twin, const at::Tensor& x) {
    const torch::NoGradGuard no_grad;
    const auto wanted = change_of(layer, x.to(at::kFloat), context_);
    const auto found = change_of(twin, x, context_);
    EXPECT_NEAR(at::sum(wanted * found).item<double>() / wanted.square().sum().item<double>(), 1,
                0.2);
  });
}

/// Of a weight that bfloat16 resolves to a hundredth of the change.
TEST_P(SmallChanges, are_kept_on_average_in_merged_weights) {
  for (const char* never_merged : {"qlora", "houlsby", "lora_biases"})
    if (GetParam().name == never_merged) return;
  const auto weights = [](Model& model) {
    std::vector<at::Tensor> all;
    for (const auto& [name, layer] : nn::linears(model.module()))
      all.push_back(layer->weight.detach().to(at::kDouble).flatten());
    return at::cat(all);
  };
  const auto before = weights(*narrow_);
  in_float_->merge(*wide_);
  in_bfloat16_->merge(*narrow_);
  EXPECT_EQ(nn::linears(narrow_->module())[0].second->weight.scalar_type(), at::kBFloat16);
  const auto wanted = weights(*wide_) - before;
  const auto found = weights(*narrow_) - before;
  EXPECT_NEAR(at::sum(wanted * found).item<double>() / wanted.square().sum().item<double>(), 1,
              0.3);
}

TEST_P(SmallChanges, have_the_gradients_of_float32) {
  const auto gradients = [&](nn::Linear& layer, const at::Tensor& x, const at::Tensor& dy) {
    const at::Tensor input = x.detach().requires_grad_();
    auto context = context_;
    layer.forward(input, context).backward(dy.to(input.scalar_type()));
    std::vector<at::Tensor> all{input.grad().to(at::kFloat)};
    for (const auto& parameter : layer.parameters())
      if (parameter.grad().defined()) all.push_back(parameter.grad().to(at::kFloat));
    return all;
  };
  for_each_changed([&](nn::Linear& layer, nn::Linear& twin, const at::Tensor& x) {
    const at::Tensor dy = torch::randn({x.size(0), layer.out()}).to(at::kBFloat16);
    const auto wanted = gradients(layer, x.to(at::kFloat), dy.to(at::kFloat));
    const auto found = gradients(twin, x, dy);
    ASSERT_EQ(found.size(), wanted.size());
    // near zero, the bottleneck's activation opens for other inputs
    const double by = GetParam().name == "houlsby" ? 0.06 : 0.03;
    for (std::size_t i = 0; i < found.size(); ++i)
      EXPECT_LT((found[i] - wanted[i]).norm().item<double>(), by * wanted[i].norm().item<double>())
          << i;
  });
}

INSTANTIATE_TEST_SUITE_P(
    all, SmallChanges,
    testing::Values(AdapterCase{"lora", {{"lora", {{"rank", four}}}}},
                    AdapterCase{"lora_biases", {{"lora", {{"rank", four}, {"lora_bias", true}}}}},
                    AdapterCase{"dora", {{"lora", {{"rank", four}, {"dora", true}}}}},
                    AdapterCase{"qlora", {{"quantize", {}}, {"lora", {{"rank", four}}}}},
                    AdapterCase{"ia3", {{"ia3", {{"targets", Texts{"k_proj", "v_proj"}}}}}},
                    AdapterCase{"lora_ia3",
                                {{"lora", {{"rank", four}}},
                                 {"ia3", {{"targets", Texts{"k_proj", "v_proj"}}}}}},
                    AdapterCase{"houlsby", {{"adapter", {{"width", std::int64_t{8}}}}}},
                    AdapterCase{"vera", {{"vera", {{"rank", std::int64_t{8}}}}}}),
    [](const auto& info) { return info.param.name; });

/// Gradients of rows of the embedding and the head, from single rows and from the whole weights.
TEST(lora, trains_rows_of_tokens_as_the_whole_weights_would) {
  using Ids = std::vector<std::int64_t>;
  const Ids ids{7, 2, 30};
  const Ids head_ids{30, 0};
  for (const bool tied : {true, false})
    for (const bool by_rows : {false, true}) {  // cross_entropy, row_losses
      const auto build = [&] {
        auto config = llama_config;
        config["tie_word_embeddings"] = tied;
        auto weights = llama_weights();
        if (!tied) weights.add("lm_head.weight", {31, 16});
        return build_model("llama", config, weights);
      };
      const auto model = build();
      const auto whole = build();
      Values values{{"rank", four}, {"targets", Texts{"q_proj"}}, {"token_rows", ids}};
      if (!tied) values["head_rows"] = head_ids;
      strategy("lora", values)->prepare(*model);
      for (const auto* name : {"model.embed_tokens.weight", "lm_head.weight"})
        if (auto* weight = whole->module().named_parameters().find(name))
          weight->requires_grad_(true);
      auto batch = next_tokens({6, 9});
      batch.tokens[2] = 7;
      batch.tokens[4] = 2;
      batch.tokens[8] = 30;
      const auto loss_of = [&](Model& of) {
        if (!by_rows) return cross_entropy(of.features(batch), of.projection(), batch.targets).sum;
        const auto losses = row_losses(of.features(batch), of.projection(), batch.targets);
        return at::add(losses.nll.square().sum(), losses.uniform.sum());
      };
      const auto loss = loss_of(*model);
      const auto expected = loss_of(*whole);
      EXPECT_LT(difference(loss, expected), 1e-4);
      loss.backward();
      expected.backward();
      const auto compare = [&](const std::string& rows, const std::string& weight, const Ids& of) {
        const auto full =
            whole->module().named_parameters()[weight].grad().index_select(0, torch::tensor(of));
        EXPECT_GT(full.abs().min().item<double>(), 0) << "every row takes part";
        EXPECT_LT(difference(model->module().named_parameters()[rows].grad(), full), 1e-5)
            << rows << tied << by_rows;
      };
      compare("model.embed_tokens.lora.rows", "model.embed_tokens.weight", ids);
      if (!tied) compare("lm_head.lora.rows", "lm_head.weight", head_ids);
    }
}

TEST(lora, with_dora_refuses_a_layer_whose_input_another_strategy_changes) {
  for (const bool is_first : {true, false}) {
    const std::pair<std::string, Values> dora{"lora", {{"rank", four}, {"dora", true}}};
    const std::pair<std::string, Values> ia3{"ia3", {}};
    const auto model = llama();
    const auto list = is_first ? listed({dora, ia3}) : listed({ia3, dora});
    list->prepare(*model);
    EXPECT_THAT(
        error_of([&] { list->loss(*model, next_tokens({5})); }),
        HasSubstr("strategy.dora cannot be combined with a strategy that changes the input"));
  }
}

TEST(lora, refuses_patterns_of_no_rank) {
  for (const double rank : {0.0, -1.0, 2.5, 1e30, std::numeric_limits<double>::infinity(),
                            std::numeric_limits<double>::quiet_NaN()})
    EXPECT_THAT(
        error_of([&] {
          strategy("lora", {{"rank_pattern", NumberMap{{"q_proj", rank}}}})->prepare(*llama());
        }),
        HasSubstr("give a whole number above 0"))
        << rank;
  EXPECT_THAT(error_of([&] {
                strategy("lora", {{"alpha_pattern",
                                   NumberMap{{"q_proj", std::numeric_limits<double>::infinity()}}}})
                    ->prepare(*llama());
              }),
              HasSubstr("give a number above 0"));
}

TEST(lora, says_which_rows_cannot_be_trained) {
  using Ids = std::vector<std::int64_t>;
  const auto refusal = [](const std::shared_ptr<Model>& model, Values values) {
    values["rank"] = four;
    return error_of([&] { strategy("lora", values)->prepare(*model); });
  };
  EXPECT_THAT(refusal(llama(), {{"token_rows", Ids{31}}}),
              HasSubstr("strategy.token_rows contains token 31, but the model has tokens 0 to 30"));
  EXPECT_THAT(refusal(llama(), {{"token_rows", Ids{-1}}}), HasSubstr("contains token -1"));
  EXPECT_THAT(refusal(llama(), {{"token_rows", Ids{4, 4}}}), HasSubstr("contains token 4 twice"));
  EXPECT_THAT(
      refusal(llama(), {{"head_rows", Ids{4}}}),
      HasSubstr(
          "shares the weight of its token embedding: list the tokens in strategy.token_rows"));
  EXPECT_EQ(refusal(llama(), {{"token_rows", Ids{4}}, {"head_rows", Ids{4}}}), "no error");
  EXPECT_THAT(
      refusal(llama(), {{"token_rows", Ids{4}}, {"save", Texts{"embed_tokens"}}}),
      HasSubstr("strategy.save and strategy.token_rows both train rows of model.embed_tokens"));
  EXPECT_THAT(refusal(bert(), {{"head_rows", Ids{1}}}),
              HasSubstr("a classifier's head is trained in full"));
  EXPECT_EQ(refusal(bert(), {{"token_rows", Ids{1}}}), "no error");
}

TEST(adapters_of_peft, with_rows_of_tokens_need_the_same_rows) {
  const json list{5, 3};
  const json table{{"embed_tokens", {5, 3}}};
  const json both{{"embed_tokens", {5, 3}}, {"lm_head", {5, 3}}};
  const json other{{"embed_tokens", {5, 3}}, {"lm_head", {7}}};
  const Values values{{"rank", four}, {"token_rows", std::vector<std::int64_t>{5, 3}}};
  for (const auto& same : {list, table, both})
    EXPECT_EQ(answer_to({{"trainable_token_indices", same}}, values), "no error") << same;
  EXPECT_THAT(answer_to({{"trainable_token_indices", {3, 5}}}, values),
              HasSubstr("trainable_token_indices is [3,5] there and [5,3] here; set "
                        "strategy.token_rows = [3,5]"));
  EXPECT_THAT(answer_to({{"trainable_token_indices", list}}),
              HasSubstr("set strategy.token_rows = [5,3]"));
  EXPECT_THAT(answer_to({{"trainable_token_indices", {{"lm_head", {7}}}}}),
              HasSubstr("set strategy.head_rows = [7]"));
  EXPECT_THAT(answer_to({{"trainable_token_indices", other}}, values),
              HasSubstr("set strategy.token_rows and strategy.head_rows to match"));
  EXPECT_THAT(answer_to({{"trainable_token_indices", {5, 3, 5}}}),
              HasSubstr("in which a token is named twice: merge it in PEFT"));
  EXPECT_THAT(answer_to({{"trainable_token_indices", nullptr}}, values),
              HasSubstr("leave out strategy.token_rows"));
}

TEST(lora, starting_from_principal_components_is_exported_as_a_change_of_the_base) {
  const auto model = llama();
  const auto base = llama();
  const auto pissa =
      strategy("lora", {{"rank", four}, {"init", std::string("pissa")}, {"rslora", true}});
  const auto plain = strategy(
      "lora", {{"rank", std::int64_t{8}}, {"alpha", 32 * std::sqrt(2.0)}, {"rslora", true}});
  pissa->prepare(*model);
  plain->prepare(*base);
  {
    const torch::NoGradGuard no_grad;
    for (auto& [name, parameter] : trainable(*model))
      parameter.add_(torch::randn_like(parameter) * 0.1);
  }
  plain->load_adapter(*base, *pissa->export_adapter(*model), "folder");
  const auto batch = batch_of({6});
  EXPECT_LT(difference(base->logits(batch), model->logits(batch)), 1e-4);
  EXPECT_LT(difference(model->logits(ForwardContext(batch).base_alone()), llama()->logits(batch)),
            1e-4)
      << "its base is the model's";
}

TEST(quantize, holds_the_base_in_fewer_bits_and_stays_near_it) {
  const auto batch = next_tokens({6, 5});
  for (const auto& [type, tolerance, most] :
       {std::tuple(std::string("nf4"), 0.15, 0.20), std::tuple(std::string("int8"), 0.01, 0.32)}) {
    const auto model = llama();
    const auto weight =
        model->module().named_parameters()["model.layers.0.mlp.up_proj.weight"].clone();
    const auto list = listed({{"lora", {{"rank", four}}}, {"quantize", {{"type", type}}}});
    list->prepare(*model);
    const auto linear = nn::linears(model->module());
    const auto up = std::find_if(linear.begin(), linear.end(), [](const auto& named) {
                      return named.first == "model.layers.0.mlp.up_proj";
                    })->second;
    EXPECT_LT((up->dense_weight() - weight).norm().item<double>() / weight.norm().item<double>(),
              tolerance)
        << type;
    EXPECT_LT(static_cast<double>(up->packed()->bytes()) / static_cast<double>(weight.nbytes()),
              most)
        << type;
    EXPECT_FALSE(model->module().named_parameters().contains("model.layers.0.mlp.up_proj.weight"));

    // Gradients are those of the same float weights.
    randomise(*list, *model);
    const auto loss = list->loss(*model, batch);
    loss.sum.backward();
    const auto plain = llama();
    const auto lora = strategy("lora", {{"rank", four}});
    lora->prepare(*plain);
    {
      const torch::NoGradGuard no_grad;
      for (const auto& [name, layer] : nn::linears(plain->module()))
        for (const auto& [packed_name, packed] : linear)
          if (name == packed_name && packed->packed()) layer->weight.copy_(packed->dense_weight());
      const auto from = trainable(*model);
      const auto to = trainable(*plain);
      for (std::size_t i = 0; i < to.size(); ++i) at::Tensor(to[i].second).copy_(from[i].second);
    }
    const auto expected = lora->loss(*plain, batch);
    expected.sum.backward();
    EXPECT_LT(difference(loss.sum, expected.sum), 1e-4);
    const auto ours = trainable(*model);
    const auto theirs = trainable(*plain);
    for (std::size_t i = 0; i < ours.size(); ++i)
      EXPECT_LT(difference(ours[i].second.grad(), theirs[i].second.grad()), 1e-4) << ours[i].first;
    EXPECT_THAT(error_of([&] { list->merge(*model); }), HasSubstr("quantized base weights"));
  }
}

// ---- Losses

at::Tensor log_p(Model& model, const Batch& batch) { return model.logits(batch).log_softmax(1); }

TEST(losses, on_classes_have_the_value_of_the_plain_form) {
  const auto loss_with = [](const std::string& plugin, Values values, const Batch& batch,
                            Model& model) {
    const auto list = listed({{"full", {}}, {plugin, std::move(values)}});
    list->prepare(model);
    Alone run;
    run.weights = {0.5, 2, 1};
    list->begin(model, run.context);
    return list->loss(model, training(batch)).sum;
  };
  const auto batch = labelled({5, 3, 6, 2});
  const auto model = bert();
  const auto logs = log_p(*model, batch);
  const auto nll = -logs.gather(1, batch.targets.unsqueeze(1)).squeeze(1);
  EXPECT_LT(difference(loss_with("label_smoothing", {{"share", 0.2}}, batch, *bert()),
                       0.8 * nll.sum() - 0.2 * logs.mean(1).sum()),
            1e-4);
  EXPECT_LT(difference(loss_with("focal", {{"gamma", 3.0}}, batch, *bert()),
                       ((1 - (-nll).exp()).pow(3) * nll).sum()),
            1e-4);
  const auto weights = torch::tensor({0.5, 2.0, 1.0}).to(at::kFloat);
  EXPECT_LT(difference(loss_with("class_weights", {}, batch, *bert()),
                       (weights.index_select(0, batch.targets) * nll).sum()),
            1e-4);
  const auto given = torch::tensor({1.0, 1.0, 3.0}).to(at::kFloat);
  EXPECT_LT(
      difference(loss_with("class_weights", {{"weights", NumberMap{{"2", 3}}}}, batch, *bert()),
                 (given.index_select(0, batch.targets) * nll).sum()),
      1e-4);
  EXPECT_THAT(error_of([&] {
                loss_with("class_weights", {{"weights", NumberMap{{"7", 3}}}}, batch, *bert());
              }),
              HasSubstr("labels 0 to 2"));
}

TEST(losses, that_regularise_measure_the_plain_one) {
  const auto batch = labelled({5, 3});
  for (const std::string plugin : {"label_smoothing", "focal", "l2sp"}) {
    const auto model = bert();
    const auto list = listed({{"full", {}}, {plugin, {}}});
    list->prepare(*model);
    EXPECT_LT(difference(list->loss(*model, batch).sum,
                         -log_p(*model, batch).gather(1, batch.targets.unsqueeze(1)).sum()),
              1e-4)
        << plugin;
  }
}

TEST(distill, learns_the_teachers_softened_distribution) {
  const auto student = llama();
  Alone run;
  run.teacher = llama();
  {
    const torch::NoGradGuard no_grad;
    for (auto& parameter : run.teacher->module().parameters())
      parameter.add_(torch::randn_like(parameter) * 0.2);
  }
  const auto list = listed(
      {{"full", {}},
       {"distill", {{"teacher", std::string("there")}, {"temperature", 3.0}, {"share", 0.7}}}});
  list->prepare(*student);
  list->begin(*student, run.context);
  const auto batch = next_tokens({9, 4});
  const auto loss = list->loss(*student, training(batch));
  const auto rows = at::nonzero(batch.targets != ignored_target).squeeze(1);
  const auto z = student->logits(batch).index_select(0, rows);
  const auto t = run.teacher->logits(batch).index_select(0, rows).detach();
  const auto p = (t / 3).softmax(1);
  const auto expected =
      0.3 * at::cross_entropy_loss(z, batch.targets.index_select(0, rows), {}, at::Reduction::Sum) +
      0.7 * 9 * (p * ((t / 3).log_softmax(1) - (z / 3).log_softmax(1))).sum();
  EXPECT_LT(difference(loss.sum, expected), 1e-3);
  const auto kl = (p * ((t / 3).log_softmax(1) - (z / 3).log_softmax(1))).sum().item<double>();
  EXPECT_NEAR(loss.scalars.at("kl").sum.item<double>(), kl, 1e-4);
  EXPECT_EQ(loss.scalars.at("kl").count, rows.size(0));
  const auto parameters = student->module().parameters();
  const auto ours = torch::autograd::grad({loss.sum}, parameters);
  const auto theirs = torch::autograd::grad({expected}, parameters);
  for (std::size_t i = 0; i < parameters.size(); ++i)
    EXPECT_LT(difference(ours[i], theirs[i]), 1e-3 * (1 + theirs[i].abs().max().item<double>()))
        << i;
}

TEST(distill, learns_from_stored_logits_as_from_their_teacher) {
  Alone run;
  run.teacher = llama();
  {
    const torch::NoGradGuard no_grad;
    for (auto& parameter : run.teacher->module().parameters())
      parameter.add_(torch::randn_like(parameter) * 0.2);
  }
  auto first = next_tokens({9, 4});
  auto second = next_tokens({5});
  first.ids = {0, 2};
  second.ids = {1};
  first.targets[3] = ignored_target;
  run.batches = {first, second};
  const auto loss_with = [&](const Values& more, const Batch& batch) {
    const auto student = llama();
    Values values{{"temperature", 3.0}, {"share", 1.0}};
    values.insert(more.begin(), more.end());
    const auto list = listed({{"full", {}}, {"distill", values}});
    list->prepare(*student);
    list->begin(*student, run.context);
    const auto loss = list->loss(*student, training(batch)).sum;
    return std::pair(loss.item<double>(),
                     torch::autograd::grad({loss}, {student->module().parameters()[0]})[0]);
  };
  const Values teacher{{"teacher", std::string("there")}};
  const Values all{{"stored", std::string("all")}, {"top", std::int64_t{31}}};
  auto both = all;
  both.insert(teacher.begin(), teacher.end());
  Batch turned = pack({first.tokens.slice(0, 9), second.tokens, first.tokens.slice(0, 0, 9)});
  turned.targets =
      at::cat({first.targets.slice(0, 9), second.targets, first.targets.slice(0, 0, 9)});
  turned.ids = {2, 1, 0};
  const auto live = loss_with(teacher, turned);
  const auto made = loss_with(both, turned);
  EXPECT_EQ(run.opened, 2);
  const auto found = loss_with(all, turned);
  EXPECT_EQ(run.opened, 2) << "the teacher is not needed again";
  for (const auto& stored : {made, found}) {
    EXPECT_NEAR(stored.first, live.first, 1e-4);
    EXPECT_LT(difference(stored.second, live.second), 1e-4);
  }

  const auto few = loss_with(
      {{"teacher", std::string("there")}, {"stored", std::string("few")}, {"top", std::int64_t{3}}},
      second);
  const auto student = llama();
  const auto rows = at::nonzero(second.targets != ignored_target).squeeze(1);
  const auto z = student->logits(second).index_select(0, rows);
  const auto t = run.teacher->logits(second).index_select(0, rows).detach();
  const auto [largest, outputs] = t.topk(3, 1);
  const auto p = (largest / 3).softmax(1);
  EXPECT_NEAR(few.first,
              9 * (p * (p.log() - (z / 3).log_softmax(1).gather(1, outputs))).sum().item<double>(),
              1e-4);
  EXPECT_THAT(error_of([&] { loss_with({{"stored", std::string("nowhere")}}, second); }),
              HasSubstr("strategy.stored: nowhere does not exist yet"));
  EXPECT_THAT(error_of([&] { loss_with({}, second); }), HasSubstr("has no teacher"));
  auto masked = second;
  masked.targets = second.targets.clone();
  masked.targets[0] = ignored_target;
  EXPECT_THAT(error_of([&] { loss_with(all, masked); }),
              HasSubstr("4 trained tokens, but the batch has 3"));
}

TEST(distill, sees_the_whole_projection) {
  const auto student = bert();
  Alone run;
  run.teacher = bert();
  {
    const torch::NoGradGuard no_grad;
    for (auto& parameter : run.teacher->module().parameters())
      parameter.add_(torch::randn_like(parameter) * 0.2);
  }
  const auto list = listed(
      {{"full", {}},
       {"distill", {{"teacher", std::string("there")}, {"temperature", 1.0}, {"share", 1.0}}}});
  list->prepare(*student);
  list->begin(*student, run.context);
  const auto batch = labelled({5, 3});
  const auto loss = list->loss(*student, training(batch)).sum;
  const auto z = student->logits(batch);
  const auto t = run.teacher->logits(batch).detach();
  const auto expected = (t.softmax(1) * (t.log_softmax(1) - z.log_softmax(1))).sum();
  EXPECT_LT(difference(loss, expected), 1e-5);
  const auto bias = student->module().named_parameters()["classifier.bias"];
  EXPECT_LT(difference(torch::autograd::grad({loss}, {bias})[0],
                       torch::autograd::grad({expected}, {bias})[0]),
            1e-5);
}

TEST(penalties, grow_with_the_distance_from_the_start_and_do_not_depend_on_the_split) {
  const auto batch = labelled({5, 3, 4});
  for (const std::string plugin : {"l2sp", "ewc"}) {
    const auto model = bert();
    const auto list = listed({{"full", {}},
                              {plugin, plugin == "ewc" ? Values{{"data", std::string("earlier")}}
                                                       : Values{{"alpha", 1.0}}}});
    list->prepare(*model);
    Alone run;
    run.batches = {labelled({4, 4}), labelled({6})};
    list->begin(*model, run.context);
    const auto plain = [&] {
      return supervised_loss(model->features(batch), model->projection(), batch.targets)
          .sum.item<double>();
    };
    EXPECT_NEAR(list->loss(*model, training(batch)).sum.item<double>(), plain(), 1e-4) << plugin;
    {
      const torch::NoGradGuard no_grad;
      for (auto& parameter : model->module().parameters()) parameter.add_(0.01);
    }
    const auto whole = list->loss(*model, training(batch));
    const auto penalty = whole.scalars.at(plugin + "/penalty");
    EXPECT_EQ(penalty.count, 1) << plugin;
    EXPECT_NEAR(whole.sum.item<double>(), plain() + 3 * penalty.sum.item<double>(), 1e-3) << plugin;
    EXPECT_GT(whole.sum.item<double>(), plain() + 1e-3) << plugin;
    double parts = 0;
    for (int sample = 0; sample < 3; ++sample) {
      auto part = pack({batch.tokens.slice(0, batch.starts[sample], batch.starts[sample + 1])});
      part.targets = batch.targets.slice(0, sample, sample + 1);
      parts += list->loss(*model, training(part)).sum.item<double>();
    }
    EXPECT_NEAR(whole.sum.item<double>(), parts, 1e-3) << plugin;
  }
}

TEST(preferences, start_at_the_loss_of_no_preference_and_refuse_what_they_cannot_compare) {
  const auto batch = pairs();
  const auto model = llama();
  const auto list = listed({{"lora", {{"rank", four}}}, {"dpo", {}}});
  list->prepare(*model);
  const auto loss = list->loss(*model, batch);
  EXPECT_NEAR(loss.sum.item<double>(), 2 * std::log(2.0), 1e-4);
  EXPECT_EQ(loss.count, 2);
  EXPECT_FALSE(
      find_metric(list->metrics({metrics::loss("nats", ""), metrics::perplexity()}), "perplexity"))
      << "it is no cross-entropy";

  const auto error_with = [&](const std::string& under, const std::string& over,
                              const Batch& data) {
    const auto other = llama();
    const auto both = listed({{under, {}}, {over, {}}});
    return error_of([&] {
      both->prepare(*other);
      both->loss(*other, data);
    });
  };
  EXPECT_THAT(error_with("full", "kto", batch),
              AllOf(HasSubstr("strategy 'kto'"), HasSubstr("but this run trains its weights")));
  EXPECT_THAT(error_with("full", "orpo", next_tokens({4})), HasSubstr("\"preference\""));
  EXPECT_EQ(error_with("full", "orpo", batch), "no error");
}

TEST(preferences, over_the_bases_own_weights_refer_to_it_as_it_was) {
  const auto batch = pairs();
  const auto model = llama();
  const auto list = listed({{"full", {}}, {"dpo", {{"beta", 0.5}}}});
  list->prepare(*model);
  Alone run;
  run.batches = {batch};
  list->begin(*model, run.context);
  EXPECT_NEAR(list->loss(*model, batch).sum.item<double>(), 2 * std::log(2.0), 1e-4);
  const torch::NoGradGuard no_grad;
  const auto before = sample_log_probabilities(*model, batch).sums;
  for (auto& parameter : model->module().parameters())
    parameter.add_(torch::randn_like(parameter) * 0.1);
  const auto moved = sample_log_probabilities(*model, batch).sums - before;
  const auto margin = moved.slice(0, 0, {}, 2) - moved.slice(0, 1, {}, 2);
  EXPECT_LT(difference(list->loss(*model, batch).sum, -at::log_sigmoid(0.5 * margin).sum()), 1e-4);

  auto turned = pack({batch.tokens.slice(0, 9, 15), batch.tokens.slice(0, 15)});
  turned.targets = batch.targets.slice(0, 9);
  turned.columns["chosen"] = torch::arange(2).remainder(2).eq(0);
  EXPECT_LT(difference(list->loss(*model, turned).sum, -at::log_sigmoid(0.5 * margin[1])), 1e-4)
      << "found by what is in it";
  EXPECT_THAT(error_of([&] { list->loss(*model, pairs()); }), HasSubstr("to use other pairs"));
}

TEST(kto, counts_every_answer_by_itself) {
  auto batch = next_tokens({5, 4, 6, 3, 7, 5});
  // a prompt of two tokens
  for (int i = 0; i < 6; ++i) batch.targets[batch.starts[i]] = ignored_target;
  batch.columns["chosen"] = torch::arange(6).remainder(2).eq(0);
  const auto model = llama();
  const auto list =
      listed({{"lora", {{"rank", four}}}, {"kto", {{"beta", 0.5}, {"desirable", 2.0}}}});
  list->prepare(*model);
  randomise(*list, *model);
  const auto loss = list->loss(*model, batch);
  const torch::NoGradGuard no_grad;
  const auto ours = sample_log_probabilities(*model, batch).sums;
  const auto base = sample_log_probabilities(*model, ForwardContext(batch).base_alone()).sums;
  // The reference point: prompts with the answers to the next one. Of each sample the first two
  // tokens are the prompt.
  const auto sample = [&](int i) {
    return batch.tokens.slice(0, batch.starts[i], batch.starts[i + 1]);
  };
  std::vector<at::Tensor> tokens;
  std::vector<at::Tensor> targets;
  for (int i = 0; i < 6; ++i) {
    tokens.push_back(at::cat({sample(i).slice(0, 0, 2), sample((i + 2) % 6).slice(0, 2)}));
    targets.push_back(
        next_token_targets(tokens.back(), (at::arange(tokens.back().size(0)) >= 2).to(at::kByte)));
  }
  auto others = pack(tokens);
  others.targets = at::cat(targets);
  const auto ours_of_others = sample_log_probabilities(*model, others).sums;
  const auto base_of_others =
      sample_log_probabilities(*model, ForwardContext(others).base_alone()).sums;
  const auto moved = (ours_of_others - base_of_others).mean();
  const auto rewards = ours - base;
  ASSERT_GT(moved.item<double>(), 0);
  const auto good = rewards.slice(0, 0, {}, 2);
  const auto bad = rewards.slice(0, 1, {}, 2);
  const auto expected = (2 * (1 - (0.5 * (good - moved)).sigmoid())).sum() +
                        (1 - (0.5 * (moved - bad)).sigmoid()).sum();
  EXPECT_LT(difference(loss.sum, expected), 1e-5);
  EXPECT_EQ(loss.count, 6);
  EXPECT_NEAR(loss.scalars.at("kl").sum.item<double>(), moved.item<double>(), 1e-5);
  EXPECT_NEAR(loss.scalars.at("rewards/chosen").sum.item<double>(), 0.5 * good.sum().item<double>(),
              1e-5);
  EXPECT_NEAR(loss.scalars.at("rewards/rejected").sum.item<double>(),
              0.5 * bad.sum().item<double>(), 1e-5);
}

TEST(kto, of_the_base_alone_has_moved_nowhere) {
  auto batch = next_tokens({5, 4, 6, 3, 7, 5});
  for (int i = 0; i < 6; ++i) batch.targets[batch.starts[i]] = ignored_target;
  batch.columns["chosen"] = torch::arange(6).remainder(2).eq(0);
  const auto model = llama();
  const auto list =
      listed({{"prefix", {{"tokens", four}, {"deviation", 2.0}}}, {"kto", {{"beta", 0.5}}}});
  list->prepare(*model);
  EXPECT_GT(std::abs(list->loss(*model, batch).scalars.at("kl").sum.item<double>()), 1e-3);
  EXPECT_EQ(
      list->loss(*model, ForwardContext(batch).base_alone()).scalars.at("kl").sum.item<double>(),
      0);
}

TEST(ewc, measures_the_same_when_blocks_are_computed_again) {
  std::vector<double> penalties;
  for (const bool recompute : {false, true}) {
    torch::manual_seed(3);
    const auto model = llama();
    const auto list = listed({{"full", {}}, {"ewc", {{"data", std::string("earlier")}}}});
    list->prepare(*model);
    Alone run;
    run.batches = {next_tokens({5, 4})};
    run.recompute = recompute;
    list->begin(*model, run.context);
    const torch::NoGradGuard no_grad;
    for (auto& parameter : model->module().parameters()) parameter.add_(0.01);
    penalties.push_back(list->loss(*model, training(next_tokens({3})))
                            .scalars.at("ewc/penalty")
                            .sum.item<double>());
  }
  EXPECT_GT(penalties[0], 0);
  EXPECT_NEAR(penalties[1], penalties[0], 1e-6 * penalties[0]);
}

TEST(neftune, makes_noise_while_training_alone) {
  const auto model = llama();
  const auto list = listed({{"full", {}}, {"neftune", {}}});
  list->prepare(*model);
  const auto batch = batch_of({6, 3});
  const auto now = model->logits(training(batch, {1, 1}));
  EXPECT_FALSE(now.equal(model->logits(training(batch, {1, 2}))));
  EXPECT_TRUE(now.equal(model->logits(training(batch, {1, 1})))) << "a function of seed and step";
  EXPECT_TRUE(model->logits(batch).equal(llama()->logits(batch)));
}

// ---- What they report beside the loss

TEST(scalars, of_contrastive_are_how_alike_pairs_are) {
  const auto& entry = registry().find(Kind::model, "bert");
  const auto options = entry.defaults();
  for (const auto& option : entry.schema.options)
    if (option.name == "head") option.set(options.get(), std::string("embedding"));
  auto weights = bert_weights();
  ModelContext context{bert_config, weights, {}};
  const auto model = std::static_pointer_cast<Model>(entry.build(options.get(), &context));
  const auto list = listed({{"full", {}}, {"contrastive", {{"temperature", 0.5}}}});
  list->prepare(*model);
  auto batch = batch_of({4, 3, 5, 2, 6, 3});
  batch.columns["pair"] = torch::arange(6).floor_divide(2);
  batch.targets = torch::arange(3);
  const auto loss = list->loss(*model, batch);
  const auto h = model->features(batch);
  const auto cosines = at::mm(h.slice(0, 0, {}, 2), h.slice(0, 1, {}, 2).t());
  const double own = cosines.diagonal().sum().item<double>();
  EXPECT_NEAR(loss.scalars.at("similarity/own").sum.item<double>(), own, 1e-5);
  EXPECT_EQ(loss.scalars.at("similarity/own").count, 3);
  EXPECT_NEAR(loss.scalars.at("similarity/others").sum.item<double>(),
              cosines.sum().item<double>() - own, 1e-5);
  EXPECT_EQ(loss.scalars.at("similarity/others").count, 6);
  EXPECT_EQ(metric_names(list->metrics(metrics::of_targets({batch, model->spec()}))),
            "accuracy, loss");
}

/// As TRL's DPOTrainer and ORPOTrainer define them.
TEST(scalars, of_preferences_are_their_rewards) {
  const auto batch = pairs();
  const auto model = llama();
  const auto mean = [](const Loss& loss, const std::string& name) {
    return loss.scalars.at(name).sum.item<double>() / loss.scalars.at(name).count;
  };
  for (const std::string form : {"sigmoid", "ipo"}) {
    const auto other = llama();
    const auto list =
        listed({{"lora", {{"rank", four}}}, {"dpo", {{"beta", 0.3}, {"form", form}}}});
    list->prepare(*other);
    randomise(*list, *other);
    const auto loss = list->loss(*other, batch);
    const torch::NoGradGuard no_grad;
    const auto ours = sample_log_probabilities(*other, batch);
    auto rewards = 0.3 * (ours.sums - sample_log_probabilities(*model, batch).sums);
    if (form == "ipo") rewards = rewards / ours.counts;
    const auto chosen = rewards.slice(0, 0, {}, 2);
    const auto rejected = rewards.slice(0, 1, {}, 2);
    const auto value = [](const at::Tensor& t) { return t.to(at::kDouble).mean().item<double>(); };
    EXPECT_NEAR(mean(loss, "rewards/chosen"), value(chosen), 1e-5) << form;
    EXPECT_NEAR(mean(loss, "rewards/rejected"), value(rejected), 1e-5) << form;
    EXPECT_NEAR(mean(loss, "rewards/margins"), value(chosen - rejected), 1e-5) << form;
    EXPECT_EQ(mean(loss, "rewards/accuracies"), value(chosen > rejected)) << form;
    EXPECT_EQ(loss.scalars.at("rewards/chosen").count, 2) << form;
    EXPECT_GT(std::abs(mean(loss, "rewards/margins")), 1e-4) << form;
  }
  const auto list = listed({{"full", {}}, {"orpo", {{"lambda", 0.2}}}});
  list->prepare(*model);
  const auto loss = list->loss(*model, batch);
  const auto samples = sample_log_probabilities(*model, batch);
  const auto means = samples.sums / samples.counts;
  EXPECT_NEAR(mean(loss, "rewards/chosen"), (0.2 * means.slice(0, 0, {}, 2).mean()).item<double>(),
              1e-5);
  EXPECT_NEAR(mean(loss, "nll_loss"), -means.slice(0, 0, {}, 2).mean().item<double>(), 1e-5);
  EXPECT_NEAR(loss.sum.item<double>() / 2,
              mean(loss, "nll_loss") - 0.2 * mean(loss, "log_odds_ratio"), 1e-4)
      << "the loss is made of them";
  EXPECT_EQ(metric_names(list->metrics(
                {metrics::loss("nats", ""), metrics::accuracy(""), metrics::perplexity()})),
            "accuracy, loss, rewards/chosen, rewards/margins, rewards/rejected");
}

TEST(scalars, of_changed_cross_entropies_are_the_plain_one_which_is_measured) {
  const std::vector<Metric> plain{metrics::loss("nats", ""), metrics::accuracy(""),
                                  metrics::f1_macro()};
  const auto batch = labelled({5, 3, 4});
  for (const std::string plugin : {"focal", "label_smoothing", "class_weights"}) {
    const auto model = bert();
    const auto list = listed({{"full", {}}, {plugin, {}}});
    list->prepare(*model);
    EXPECT_EQ(metric_names(list->metrics(plain)), "accuracy, f1_macro, loss") << plugin;
    const auto loss = list->loss(*model, training(batch));
    const auto cross_entropy =
        supervised_loss(model->features(batch), model->projection(), batch.targets)
            .sum.item<double>();
    EXPECT_NEAR(loss.scalars.at("cross_entropy").sum.item<double>(), cross_entropy, 1e-4) << plugin;
    EXPECT_EQ(loss.scalars.at("cross_entropy").count, 3) << plugin;
  }
}

}  // namespace
