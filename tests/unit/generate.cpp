// Which token follows, under the limits that transformers has.
#include <attune/tokenizer.hpp>
#include <gmock/gmock.h>
#include <torch/torch.h>

#include <nlohmann/json.hpp>

#include "errors.hpp"
#include "nn/generation_defaults.hpp"
#include "weights/model_files.hpp"

namespace {

using namespace attune;
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

/// The values are those of transformers' logits processors on the same input.
TEST(NextProbabilities, AreThoseOfTransformers) {
  const at::Tensor logits = torch::tensor({2.0, 1.5, 1.0, -0.5, -2.0, 0.25}, at::kFloat);
  const auto expect = [&](const nn::GenerateOptions& options, const std::vector<float>& expected) {
    const at::Tensor got = nn::next_probabilities(logits, {0, 3, 0}, options);
    EXPECT_TRUE(at::allclose(got, torch::tensor(expected), 0, 2e-6)) << got;
  };
  expect({.temperature = 1, .repetition_penalty = 2},
         {0.232223F, 0.382871F, 0.232223F, 0.031428F, 0.011562F, 0.109694F});
  expect({.temperature = 0.5}, {0.649146F, 0.238807F, 0.087852F, 0.004374F, 0.000218F, 0.019603F});
  expect({.temperature = 1, .top_k = 3}, {0.50648F, 0.307196F, 0.186324F, 0, 0, 0});
  expect({.temperature = 1, .top_p = 0.8}, {0.50648F, 0.307196F, 0.186324F, 0, 0, 0});
  expect({.temperature = 1, .min_p = 0.3}, {0.50648F, 0.307196F, 0.186324F, 0, 0, 0});
  expect({.temperature = 0.7, .top_k = 4, .top_p = 0.9, .min_p = 0.25, .repetition_penalty = 1.5},
         {0.346024F, 0.439045F, 0.214931F, 0, 0, 0});
  expect({.repetition_penalty = 2}, {0, 1, 0, 0, 0, 0});
  expect({.temperature = 1, .top_k = 100, .top_p = 0}, {1, 0, 0, 0, 0, 0});
}

const json tokenizer_json = json::parse(
    R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"c":2,"d":3,"e":4},"merges":[]},"added_tokens":[]})");

TEST(EndTokens, AreThoseOfEveryFile) {
  const Tokenizer tokenizer(tokenizer_json);
  ModelFiles files;
  files.config = {{"eos_token_id", 1}, {"text_config", {{"eos_token_id", {3}}}}};
  files.generation = {{"eos_token_id", {1, 2}}};
  files.tokenizer_config = {{"eos_token", {{"content", "e"}}}};
  EXPECT_THAT(nn::end_tokens(files, tokenizer), ElementsAre(1, 2, 3, 4));
  files.tokenizer_config = {{"eos_token", "nowhere"}};
  files.config = {{"eos_token_id", nullptr}};
  EXPECT_THAT(nn::end_tokens(files, tokenizer), ElementsAre(1, 2));
}

TEST(GenerationDefaults, OfGenerationConfigOrElseOfConfig) {
  const Tokenizer tokenizer(tokenizer_json);
  ModelFiles files;
  files.config = {{"do_sample", true},
                  {"top_k", 7},
                  {"num_beams", 4},
                  {"hidden_size", 8},
                  {"text_config", {{"temperature", 0.5}, {"top_k", 9}}}};
  files.generation = json::object();
  auto defaults = nn::generation_defaults(files, tokenizer);
  EXPECT_EQ(defaults.options.temperature, 0.5);
  EXPECT_EQ(defaults.options.top_k, 7);
  EXPECT_THAT(defaults.ignored, ElementsAre("num_beams"));
  EXPECT_FALSE(defaults.has_length);

  files.generation = {{"max_new_tokens", 3},   {"num_beams", 1},  {"penalty_alpha", 0.6},
                      {"stop_strings", {"x"}}, {"unheard_of", 1}, {"pad_token_id", 0}};
  defaults = nn::generation_defaults(files, tokenizer);
  EXPECT_EQ(defaults.options.temperature, 0) << "without do_sample: the likeliest token";
  EXPECT_EQ(defaults.options.max_tokens, 3);
  EXPECT_THAT(defaults.ignored, ElementsAre("penalty_alpha", "stop_strings", "unheard_of"));

  files.generation = {{"do_sample", true}, {"temperature", -1}};
  EXPECT_THAT(error_of([&] { nn::generation_defaults(files, tokenizer); }),
              HasSubstr("generation_config.json has temperature = -1"));
}

}  // namespace
