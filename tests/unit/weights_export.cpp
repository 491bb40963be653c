// Exported model folders: what is made, what is copied, what is updated.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "core/files.hpp"
#include "weights/chat_template_files.hpp"
#include "weights/export_folder.hpp"
#include "weights/model_files.hpp"
#include "weights/safetensors.hpp"
#include "weights/special_tokens.hpp"
#include "weights_fixtures.hpp"

namespace {

using namespace attune;
using namespace fixtures;
using nlohmann::json;
using testing::HasSubstr;
namespace fs = std::filesystem;

/// As AutoTokenizer reads it, so that it is what it was after reading it again.
const json small_tokenizer = json::parse(
    R"({"model":{"type":"BPE","unk_token":"<unk>","vocab":{"a":0,"b":1,"<s>":2,"c":3,"<unk>":4}},
  "added_tokens":[{"id":0,"content":"a","special":true},{"id":2,"content":"<s>","special":true},{"id":4,"content":"<unk>","special":true},
                  {"id":5,"content":"<e>","special":true}]})");

/// A model that no folder holds, as one that was read from GGUF.
ModelFiles made_files() {
  ModelFiles files;
  files.tokenizer = small_tokenizer;
  files.chat_template = "{{ m }}";
  files.generation = {{"pad_token_id", 0}};
  return files;
}

json read(const fs::path& path) { return json::parse(read_text(path)); }

TEST(Export, WhatIsWrittenOpensAgainTheSame) {
  TemporaryFolder folder;
  const json config = {{"model_type", "llama"},
                       {"max_position_embeddings", 64},
                       {"bos_token_id", 2},
                       {"eos_token_id", {5, 2}}};

  export_model_folder(folder / "out/model/", made_files(), "", config,
                      to_write({{"a", at::arange(6)}}));

  const auto files = ModelFiles::open(folder / "out/model");
  EXPECT_EQ(files.config, config);
  EXPECT_EQ(files.tokenizer, small_tokenizer);
  EXPECT_EQ(files.chat_template, "{{ m }}");
  EXPECT_TRUE(at::equal(files.weights->read("a"), at::arange(6)));
  EXPECT_EQ(read(folder / "out/model/tokenizer_config.json"),
            json::parse(R"({"tokenizer_class":"PreTrainedTokenizerFast",
    "clean_up_tokenization_spaces":false,"model_max_length":64,"bos_token":"<s>","eos_token":"<e>","pad_token":"a","unk_token":"<unk>",
    "model_input_names":["input_ids","attention_mask"],"chat_template":"{{ m }}"})"));
}

TEST(Export, LargeWeightsGoIntoSeveralFiles) {
  TemporaryFolder folder;
  const std::vector<std::pair<std::string, at::Tensor>> tensors{{"a", at::arange(6)},
                                                                {"b", at::rand({5})},
                                                                {"large", at::rand({100})},
                                                                {"c", at::ones({2})},
                                                                {"d", at::zeros({2})}};
  const auto write = [&](const char* name, std::uint64_t largest) {
    export_model_folder(folder / name, made_files(), "", {{"model_type", "x"}}, to_write(tensors),
                        {}, largest);
    const auto files = ModelFiles::open(folder / name);
    for (const auto& [of, tensor] : tensors)
      EXPECT_TRUE(at::equal(files.weights->read(of), tensor)) << of;
  };
  write("out", 68);
  const auto index = read(folder / "out/model.safetensors.index.json");
  EXPECT_EQ(index["metadata"]["total_size"], 48 + 20 + 400 + 8 + 8);
  EXPECT_EQ(index["weight_map"], (json{{"a", "model-00001-of-00003.safetensors"},
                                       {"b", "model-00001-of-00003.safetensors"},
                                       {"large", "model-00002-of-00003.safetensors"},
                                       {"c", "model-00003-of-00003.safetensors"},
                                       {"d", "model-00003-of-00003.safetensors"}}));
  EXPECT_FALSE(fs::exists(folder / "out/model.safetensors"));
  write("whole", 484);
  EXPECT_TRUE(fs::exists(folder / "whole/model.safetensors"));
  EXPECT_FALSE(fs::exists(folder / "whole/model.safetensors.index.json"));
}

TEST(Export, AFolderThatIsNotEmptyIsLeftAlone) {
  TemporaryFolder folder;
  write_bytes(folder / "out/mine.txt", "mine");

  EXPECT_THAT(error_of([&] {
                export_model_folder(folder / "out", {}, "", json::object(),
                                    to_write({{"a", at::ones({1})}}));
              }),
              HasSubstr("already exists and is not an empty folder"));

  EXPECT_EQ(read_text(folder / "out/mine.txt"), "mine");
}

TEST(Export, AFailureLeavesNothingBehind) {
  TemporaryFolder folder;

  EXPECT_THAT(error_of([&] {
                export_model_folder(folder / "out", {}, "", json::object(),
                                    to_write({{"a", at::ones({1}, at::kComplexFloat)}}));
              }),
              HasSubstr("tensor 'a' has a type"));

  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(Export, WhatIsStillTrueIsCopiedByteForByte) {
  TemporaryFolder folder;
  const char* kept[] = {"tokenizer_config.json",
                        "special_tokens_map.json",
                        "added_tokens.json",
                        "vocab.json",
                        "merges.txt",
                        "tokenizer.model",
                        "generation_config.json",
                        "additional_chat_templates/tools.jinja",
                        "LICENSE"};
  for (const auto* name : kept)
    write_bytes(folder / "in" / name, "{ \"of\":\r\n" + ("\"" + std::string(name)) + "\" }");
  write_bytes(folder / "in/tokenizer_config.json",
              "{ \"tokenizer_class\":\r\n\"PreTrainedTokenizerFast\" }");
  write_bytes(folder / "in/added_tokens.json", "{ \"<e>\":\r\n5 }");
  write_bytes(folder / "in/chat_template.jinja", "{{ of }}\r\n");
  write_bytes(folder / "in/tokenizer.json", small_tokenizer.dump(1));
  write_bytes(folder / "in/config.json",
              "{ \"model_type\": \"x\",\"attention_dropout\":0.10, \"torch_dtype\":\"float16\"}");
  for (const auto* name : {"optimizer.pt", "pytorch_model.bin.index.json", "run.py"})
    write_bytes(folder / "in" / name, "left");
  write_safetensors(folder / "in/model.safetensors", {{"a", at::ones({2}, at::kHalf)}});
  fs::create_symlink(folder / "in", folder / "cache");
  const auto files = ModelFiles::open(folder / "in");

  export_model_folder(folder / "out", files, folder / "cache", files.config,
                      to_write({{"a", at::ones({2}, at::kHalf)}}));

  for (const auto* name : kept)
    EXPECT_EQ(read_text(folder / "out" / name), read_text(folder / "in" / name)) << name;
  for (const auto* name : {"chat_template.jinja", "tokenizer.json", "config.json"})
    EXPECT_EQ(read_text(folder / "out" / name), read_text(folder / "in" / name)) << name;
  EXPECT_FALSE(fs::exists(folder / "out/optimizer.pt") ||
               fs::exists(folder / "out/pytorch_model.bin.index.json") ||
               fs::exists(folder / "out/run.py"));
}

TEST(Export, ConfigNamesTheTypeOfTheTensors) {
  const auto named = [](const json& config, const std::vector<at::ScalarType>& types) {
    TemporaryFolder folder;
    std::vector<std::pair<std::string, at::Tensor>> tensors{{"ids", at::ones({1}, at::kLong)}};
    for (const auto type : types)
      tensors.emplace_back(std::to_string(tensors.size()), at::ones({1}, type));
    export_model_folder(folder / "out", {}, "", config, to_write(tensors));
    return read(folder / "out/config.json");
  };
  EXPECT_EQ(named({{"dtype", "bfloat16"}}, {at::kFloat}), json({{"dtype", "float32"}}));
  EXPECT_EQ(named({{"torch_dtype", "float32"}}, {at::kBFloat16}),
            json({{"torch_dtype", "bfloat16"}}));
  EXPECT_EQ(named({{"dtype", "auto"}, {"torch_dtype", nullptr}}, {at::kHalf}),
            json({{"dtype", "float16"}, {"torch_dtype", "float16"}}));
  EXPECT_EQ(named(json::object(), {at::kHalf}), json::object())
      << "without the key transformers goes by the weights";
  EXPECT_EQ(named({{"dtype", "float16"}}, {at::kHalf, at::kFloat}), json({{"dtype", "float16"}}))
      << "true of some: kept";
  EXPECT_EQ(named({{"dtype", "float64"}}, {at::kBFloat16, at::kFloat}),
            json({{"dtype", "float32"}}))
      << "the widest";
}

TEST(Export, PicturesAreScaledAsTheyWereInTraining) {
  TemporaryFolder folder;
  write_bytes(folder / "in/config.json", R"({"image_size":32})");
  write_bytes(
      folder / "in/preprocessor_config.json",
      R"({"image_mean":[0.5],"image_std":[0.25],"size":{"height":32,"width":32},"resample":3})");
  write_safetensors(folder / "in/model.safetensors", {{"a", at::ones({2})}});
  const auto files = ModelFiles::open(folder / "in");
  auto config = files.config;

  export_model_folder(folder / "same", files, folder / "in", config,
                      to_write({{"a", at::ones({2})}}));
  config["image_size"] = 48;
  export_model_folder(folder / "larger", files, folder / "in", config,
                      to_write({{"a", at::ones({2})}}));
  fs::remove(folder / "in/preprocessor_config.json");
  export_model_folder(folder / "made", files, folder / "in", config,
                      to_write({{"a", at::ones({2})}}));

  EXPECT_EQ(read_text(folder / "same/config.json"), R"({"image_size":32})");
  EXPECT_EQ(read(folder / "same/preprocessor_config.json")["size"]["height"], 32);
  EXPECT_EQ(
      read(folder / "larger/preprocessor_config.json"),
      json::parse(
          R"({"image_mean":[0.5],"image_std":[0.25],"size":{"height":48,"width":48},"resample":3})"));
  const auto made = read(folder / "made/preprocessor_config.json");
  EXPECT_EQ(made["size"]["width"], 48);
  EXPECT_EQ(made["image_std"], json({0.25}));
  EXPECT_EQ(made["resample"], 2);
}

TEST(Export, TheLongestTextIsWithoutThePositionsThatRobertaLeavesOut) {
  const auto longest = [](const json& config) {
    TemporaryFolder folder;
    export_model_folder(folder / "out", made_files(), "", config, to_write({{"a", at::ones({1})}}));
    return read(folder / "out/tokenizer_config.json").value("model_max_length", 0);
  };
  EXPECT_EQ(
      longest({{"model_type", "roberta"}, {"max_position_embeddings", 514}, {"pad_token_id", 1}}),
      512);
  EXPECT_EQ(longest({{"model_type", "gpt2"}, {"n_positions", 1024}}), 1024);
  EXPECT_EQ(
      longest({{"model_type", "bert"}, {"max_position_embeddings", 512}, {"pad_token_id", 0}}),
      512);
}

TEST(Export, TheLicenceGoesWithTheModel) {
  TemporaryFolder folder;
  auto files = made_files();
  files.licence = "apache-2.0";

  export_model_folder(folder / "out", files, "", {{"model_type", "x"}},
                      to_write({{"a", at::ones({1})}}));

  EXPECT_EQ(ModelFiles::open(folder / "out").licence, "apache-2.0");
}

TEST(SpecialTokens, OfGgufMetadata) {
  const auto metadata = json::parse(
      R"({"tokenizer.ggml.tokens":["<unk>","<s>","</s>","<turn>","<message>"],"tokenizer.ggml.unknown_token_id":0,
    "tokenizer.ggml.bos_token_id":1,"tokenizer.ggml.eos_token_id":2,"tokenizer.ggml.eot_token_id":3,"tokenizer.ggml.eom_token_id":4,
    "tokenizer.ggml.padding_token_id":9,"tokenizer.ggml.seperator_token_id":2})");
  const std::map<std::string, std::string> tokens{
      {"unk_token", "<unk>"}, {"bos_token", "<s>"}, {"eos_token", "</s>"}, {"sep_token", "</s>"}};
  EXPECT_EQ(special_tokens_of_gguf(metadata), tokens);
  EXPECT_EQ(generation_config_from_gguf(metadata),
            json::parse(R"({"bos_token_id":1,"eos_token_id":[2,3,4],"pad_token_id":9})"));
  EXPECT_EQ(generation_config_from_gguf(json::parse(
                R"({"tokenizer.ggml.eos_token_id":2,"tokenizer.ggml.eot_token_id":2})")),
            json::parse(R"({"eos_token_id":2})"));
}

TEST(SpecialTokens, InTheFormsThatFilesHave) {
  const auto config = json::parse(R"({"a":"x","b":{"content":"y"},"c":null,"d":[1,2],"e":7})");
  EXPECT_EQ(special_token(config, "a") + special_token(config, "b") + special_token(config, "c") +
                special_token(config, "z"),
            "xy");
  EXPECT_EQ(token_ids(config, "d"), (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(token_ids(config, "e"), (std::vector<std::int64_t>{7}));
  EXPECT_TRUE(token_ids(config, "c").empty() && token_ids(config, "a").empty() &&
              token_ids(nullptr, "a").empty());
  const json tokenizer{{"model", {{"vocab", {{"b", 0}, {"c", 1}}}}}};
  const std::map<std::string, std::string> tokens{
      {"eos_token", "b"}, {"pad_token", "c"}, {"unk_token", "absent"}};
  EXPECT_EQ(with_special_tokens({{"eos_token", "a"}, {"x", 1}}, tokens, tokenizer),
            json({{"eos_token", "b"}, {"pad_token", "c"}, {"x", 1}}));
}

TEST(trained_chat_template, sets_the_tokens_that_were_others_the_models_own_among_them) {
  const ChatSource trained{"{{ bos_token }}{{ image_token }}",
                           "",
                           {{"bos_token", "<s>"}, {"image_token", "<img>"}, {"eos_token", "a"}}};
  auto own = trained;
  own.tokens["eos_token"] = "b";
  EXPECT_EQ(other_chat_template(trained, own), "") << "it does not name that one";
  own.tokens["image_token"] = "<image>";
  EXPECT_EQ(other_chat_template(trained, own),
            "{% set image_token = \"<img>\" %}\n" + trained.jinja);
  own.tokens.erase("image_token");
  EXPECT_EQ(other_chat_template(trained, own),
            "{% set image_token = \"<img>\" %}\n" + trained.jinja);
}

}  // namespace
