// Model folders: what is read from them, what is refused.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "weights/chat_template_files.hpp"
#include "weights/describe.hpp"
#include "weights/model_files.hpp"
#include "weights/safetensors.hpp"
#include "weights_fixtures.hpp"

namespace {

using namespace attune;
using namespace fixtures;
using nlohmann::json;
using testing::HasSubstr;

std::string error_of_open(const std::filesystem::path& path) {
  return error_of([&] { ModelFiles::open(path); });
}

const json small_tokenizer = json::parse(
    R"({"model":{"type":"BPE","unk_token":"<unk>","vocab":{"a":0,"b":1,"<s>":2,"c":3,"<unk>":4}},
  "added_tokens":[{"id":0,"content":"a","special":true},{"id":2,"content":"<s>"},{"id":4,"content":"<unk>","special":true},{"id":5,"content":"<e>"}]})");

void write_model(const TemporaryFolder& folder) {
  write_bytes(folder / "config.json", R"({"model_type":"bert","hidden_size":2})");
  write_safetensors(folder / "model.safetensors",
                    {{"a", at::ones({2, 3})}, {"b", at::ones({4}, at::kHalf)}});
}

TEST(ModelFolder, EveryPartIsRead) {
  TemporaryFolder folder;
  write_model(folder);
  write_bytes(folder / "tokenizer.json", small_tokenizer.dump());
  write_bytes(folder / "tokenizer_config.json",
              R"({"tokenizer_class":"PreTrainedTokenizerFast","chat_template":"{{ messages }}"})");
  write_bytes(folder / "generation_config.json", R"({"eos_token_id":2})");
  write_bytes(folder / "README.md", "---\nlanguage: en\nlicense: apache-2.0\n---\nlicense: none\n");

  const auto files = ModelFiles::open(folder.path());

  EXPECT_EQ(files.config["hidden_size"], 2);
  EXPECT_EQ(files.tokenizer, small_tokenizer);
  EXPECT_EQ(files.chat_template, "{{ messages }}");
  EXPECT_EQ(files.generation["eos_token_id"], 2);
  EXPECT_EQ(files.licence, "apache-2.0");
  EXPECT_TRUE(at::equal(files.weights->read("a"), at::ones({2, 3})));
  EXPECT_EQ(weights_sha256(files), sha256_of_file(folder / "model.safetensors"));
}

TEST(ChatTemplateFiles, AreReadFromWhereTransformersReadsThem) {
  TemporaryFolder folder;
  EXPECT_EQ(chat_template_of(folder.path()).jinja, "");
  write_bytes(folder / "chat_template.json", R"({"chat_template": "last"})");
  EXPECT_EQ(chat_template_of(folder.path()).jinja, "last");
  write_bytes(folder / "special_tokens_map.json",
              R"({"bos_token": "<m>", "unk_token": {"content": "<u>"}})");
  write_bytes(folder / "tokenizer_config.json",
              R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null,
    "chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}, {"name": "rag", "template": "r"}]})");
  const auto listed = chat_template_of(folder.path());
  EXPECT_EQ(listed.jinja, "d");
  EXPECT_EQ(listed.tool_use, "t");
  EXPECT_EQ(listed.tokens, (std::map<std::string, std::string>{
                               {"bos_token", "<m>"}, {"eos_token", "</s>"}, {"unk_token", "<u>"}}));
  write_bytes(folder / "chat_template.jinja", "file");
  EXPECT_EQ(chat_template_of(folder.path()).jinja, "file");
  EXPECT_EQ(chat_template_of(folder.path()).tool_use, "");
  write_bytes(folder / "mine.jinja", "mine");
  EXPECT_EQ(chat_template_in(folder / "mine.jinja", folder.path()).jinja, "mine");
  EXPECT_EQ(chat_template_in(folder / "mine.jinja", folder.path()).tokens.at("eos_token"), "</s>");
}

TEST(ChatTemplateFiles, SeveralWithoutADefaultAreRefused) {
  TemporaryFolder folder;
  write_bytes(
      folder / "tokenizer_config.json",
      R"({"chat_template": [{"name": "rag", "template": "r"}, {"name": "tool_use", "template": "t"}]})");
  EXPECT_THAT(error_of([&] { chat_template_of(folder.path()); }),
              HasSubstr("several chat templates (rag, tool_use), none named \"default\""));
}

TEST(ModelFolder, PartsThatAModelCanDoWithoutMayBeMissing) {
  TemporaryFolder folder;
  write_model(folder);

  const auto files = ModelFiles::open(folder.path());

  EXPECT_TRUE(files.tokenizer.is_null());
  EXPECT_EQ(files.chat_template, "");
  EXPECT_EQ(files.generation, json::object());
  EXPECT_EQ(files.licence, "");
}

TEST(ModelFolder, TheTemplateFileGoesBeforeTheOneInTheConfig) {
  TemporaryFolder folder;
  write_model(folder);
  write_bytes(
      folder / "tokenizer_config.json",
      R"({"chat_template":[{"name":"tools","template":"t"},{"name":"default","template":"d"}]})");
  EXPECT_EQ(ModelFiles::open(folder.path()).chat_template, "d");

  write_bytes(folder / "chat_template.jinja", "j");

  EXPECT_EQ(ModelFiles::open(folder.path()).chat_template, "j");
}

TEST(ModelFolder, TheSumOfSeveralWeightFilesIsThatOfTheirList) {
  TemporaryFolder folder;
  write_bytes(folder / "config.json", "{}");
  write_safetensors(folder / "1.safetensors", {{"a", at::ones({2})}});
  write_safetensors(folder / "2.safetensors", {{"b", at::ones({3})}});
  write_bytes(folder / "model.safetensors.index.json",
              R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})");

  const auto list = sha256_of_file(folder / "1.safetensors") + "  1.safetensors\n" +
                    sha256_of_file(folder / "2.safetensors") + "  2.safetensors\n";

  EXPECT_EQ(weights_sha256(ModelFiles::open(folder.path())), sha256(list));
}

TEST(ModelFolder, WhatIsMissingIsSaid) {
  TemporaryFolder folder;
  EXPECT_THAT(
      error_of_open(folder / "none"),
      HasSubstr(
          "there is no such file or folder; expected a Hugging Face model folder or a .gguf file"));
  EXPECT_THAT(error_of_open(folder.path()), HasSubstr("contains no config.json and no .gguf file"));
  write_bytes(folder / "adapter_config.json", "{}");
  EXPECT_THAT(error_of_open(folder.path()), HasSubstr("this is an adapter"));
  write_bytes(folder / "config.json", "[]");
  EXPECT_THAT(error_of_open(folder.path()), HasSubstr("config.json: must hold a JSON object"));
  write_bytes(folder / "config.json", "{");
  EXPECT_THAT(error_of_open(folder.path()),
              HasSubstr("config.json: is not valid JSON from byte 2"));
  EXPECT_THAT(error_of_open(folder / "config.json"), HasSubstr("is not a model"));
  write_bytes(folder / "config.json", "{}");
  EXPECT_THAT(error_of_open(folder.path()),
              HasSubstr("contains no weights; expected model.safetensors"));
  write_bytes(folder / "pytorch_model.bin", "");
  EXPECT_THAT(error_of_open(folder.path()), HasSubstr("pytorch_model.bin is not read"));
  std::filesystem::remove(folder / "pytorch_model.bin");
  write_bytes(folder / "a.safetensors", "");
  EXPECT_THAT(error_of_open(folder.path()),
              HasSubstr("does not read a.safetensors: rename it to model.safetensors if it "
                        "contains the whole model"));
  write_bytes(folder / "b.safetensors", "");
  EXPECT_THAT(error_of_open(folder.path()),
              HasSubstr("transformers reads none of a.safetensors, b.safetensors"));
  write_bytes(folder / "model.safetensors", "");
  EXPECT_THAT(error_of_open(folder.path()),
              HasSubstr("contains a model and an adapter for it (adapter_config.json)"));
}

TEST(ModelFolder, JsonThatNoProgramCouldHoldIsRefused) {
  TemporaryFolder folder;
  write_model(folder);
  write_bytes(folder / "config.json", R"({"hidden_size":1e999})");
  EXPECT_THAT(error_of_open(folder.path()),
              HasSubstr("config.json: contains a number that is too large"));
  write_bytes(folder / "config.json",
              R"({"a":)" + std::string(100'000, '[') + std::string(100'000, ']') + "}");
  EXPECT_THAT(error_of_open(folder.path()), HasSubstr("config.json: has lists nested too deeply"));
  write_bytes(folder / "config.json", R"({"a":")" + std::string(1000, '[') + R"(\"]","b":[[{}]]})");
  EXPECT_EQ(error_of_open(folder.path()), "");
}

TEST(ModelFolder, OneGgufFileInItIsTheModelAndSeveralMustBeNamed) {
  TemporaryFolder folder;
  write_bytes(folder / "a.gguf", "GGML");
  EXPECT_THAT(error_of_open(folder.path()), HasSubstr("a.gguf: is not a GGUF file"));

  write_bytes(folder / "b.gguf", "GGML");

  EXPECT_THAT(error_of_open(folder.path()),
              HasSubstr("several GGUF files (a.gguf, b.gguf); name one of them"));
}

TEST(ModelFolder, TheOnlySplitGgufModelInItIsTheModel) {
  TemporaryFolder folder;
  write_bytes(folder / "m-00001-of-00002.gguf", "GGML");
  write_bytes(folder / "m-00002-of-00002.gguf", "GGML");
  write_bytes(folder / "._m-00001-of-00002.gguf", "Mac OS X");
  EXPECT_THAT(error_of_open(folder.path()),
              HasSubstr("/m-00001-of-00002.gguf: is not a GGUF file"));

  write_bytes(folder / "n-00001-of-00002.gguf", "GGML");

  EXPECT_THAT(error_of_open(folder.path()), HasSubstr("several GGUF files"));
}

TEST(ModelFolder, TheFileThatTheConfigNamesGoesFirst) {
  TemporaryFolder folder;
  write_model(folder);
  write_safetensors(folder / "other.safetensors", {{"a", at::zeros({2, 3})}});
  write_bytes(folder / "config.json", R"({"transformers_weights":"other.safetensors"})");

  const auto files = ModelFiles::open(folder.path());

  EXPECT_TRUE(at::equal(files.weights->read("a"), at::zeros({2, 3})));
  EXPECT_FALSE(files.config.contains("transformers_weights"));
  write_bytes(folder / "config.json", R"({"transformers_weights":"none.safetensors"})");
  EXPECT_THAT(error_of_open(folder.path()),
              HasSubstr("names the weights 'none.safetensors', which are not in the same folder"));
}

TEST(ModelFolder, TheWholeFileGoesBeforeAStaleIndex) {
  TemporaryFolder folder;
  write_model(folder);
  write_bytes(folder / "model.safetensors.index.json",
              R"({"weight_map":{"a":"gone.safetensors"}})");

  EXPECT_TRUE(at::equal(ModelFiles::open(folder.path()).weights->read("a"), at::ones({2, 3})));
}

TEST(ModelFolder, ATokenizerThatTheEmbeddingIsTooSmallForIsRefused) {
  EXPECT_EQ(tokenizer_size(small_tokenizer), 6);
  EXPECT_EQ(error_of([] { check_tokenizer("m", 6, 6); }), "");
  EXPECT_THAT(error_of([] { check_tokenizer("m", 7, 6); }),
              HasSubstr("m: its tokenizer has 7 tokens, but its token embedding has only 6 rows"));
}

TEST(Describe, SaysWhatTheFilesHold) {
  TemporaryFolder folder;
  write_model(folder);
  write_bytes(folder / "tokenizer.json", small_tokenizer.dump());
  write_bytes(folder / "tokenizer_config.json", R"({"tokenizer_class":"PreTrainedTokenizerFast"})");

  const auto text = describe_model(ModelFiles::open(folder.path()));

  EXPECT_THAT(text, HasSubstr("architecture    bert\n"));
  EXPECT_THAT(text, HasSubstr("parameters      10 parameters in 2 tensors, 32 B\n"));
  EXPECT_THAT(text, HasSubstr("  F16           4 parameters in 1 tensor, 8 B\n"));
  EXPECT_THAT(text, HasSubstr("tokenizer       6 tokens\n"));
  EXPECT_THAT(text, HasSubstr("chat template   no\n"));
}

}  // namespace
