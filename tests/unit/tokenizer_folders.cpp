// Tokenizers from the files of model folders. The ids are those of AutoTokenizer
// (transformers 5.23) on the same files; tests/parity/tokenizer_folders.cpp compares many more.
#include "tokenizer_folders.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "attune/error.hpp"
#include "attune/tokenizer.hpp"
#include "text/convert.hpp"
#include "text/sentencepiece.hpp"

namespace attune {
namespace {
using fixtures::tokenizer_of;
using testing::HasSubstr;
using testing::ThrowsMessage;
using Ids = std::vector<std::int32_t>;
using Files = std::map<std::string, std::string>;

const std::string words =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nm\n##o\n##\u00f6\n##c\n##h\n##t\n##"
    "e\nm\u00f6chte\nmochte\nich\n\u4e2d\n\u56fd\n\u4e2d\u56fd\n";

Ids ids(const Files& files, const std::string& text) {
  return Tokenizer(tokenizer_of(files)).encode(text);
}

auto refusal(Files files) {
  return [files = std::move(files)] { tokenizer_of(files); };
}

Files bert(const std::string& config) {
  return {{"vocab.txt", words},
          {"tokenizer_config.json", config},
          {"config.json", R"({"model_type": "bert"})"}};
}

TEST(TokenizerFolder, AccentsAndChineseCharactersAreKeptWhereTheConfigSaysSo) {
  const std::string text = "Ich m\u00f6chte \u4e2d\u56fd";
  EXPECT_EQ(ids(bert("{}"), text), (Ids{2, 14, 13, 15, 16, 3}));
  EXPECT_EQ(ids(bert(R"({"do_lower_case": true, "strip_accents": false})"), text),
            (Ids{2, 14, 12, 15, 16, 3}));
  EXPECT_EQ(ids(bert(R"({"tokenize_chinese_chars": false})"), text), (Ids{2, 14, 13, 17, 3}));
  EXPECT_EQ(ids(bert(R"({"do_lower_case": false, "strip_accents": true})"), text),
            (Ids{2, 1, 13, 15, 16, 3}));
  EXPECT_EQ(ids(bert(R"({"do_lower_case": false})"), text), (Ids{2, 1, 12, 15, 16, 3}));
}

TEST(TokenizerFolder, AddedTokensGetTheNextIdsInTheOrderOfTheFile) {
  EXPECT_EQ(
      ids(bert(
              R"({"added_tokens_decoder": {"99": {"content": "<b>"}, "50": {"content": "<a>", "lstrip": true}}})"),
          "ich <a><b>"),
      (Ids{2, 14, 18, 19, 3}));
  auto files = bert("{}");
  files["added_tokens.json"] = R"({"<b>": 99, "<a>": 50})";
  files["special_tokens_map.json"] =
      R"({"mask_token": {"content": "<b>", "lstrip": true, "rstrip": false, "normalized": false, "single_word": false}})";
  EXPECT_EQ(ids(files, "ich <a> <b>"), (Ids{2, 14, 18, 19, 3}));
}

TEST(TokenizerFolder, TheNamedClassDecidesOverTheStagesOfTokenizerJson) {
  const std::string json =
      R"({"added_tokens": [], "normalizer": {"type": "BertNormalizer", "lowercase": true}, "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": null, "decoder": null, "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "[MASK]": 4, "a": 5, "A": 6}}})";
  EXPECT_EQ(ids({{"tokenizer.json", json}}, "A"), (Ids{5}));
  EXPECT_EQ(ids({{"tokenizer.json", json},
                 {"tokenizer_config.json",
                  R"({"tokenizer_class": "BertTokenizer", "do_lower_case": false})"}},
                "A"),
            (Ids{1, 6, 2}));
  EXPECT_EQ(ids({{"tokenizer.json", json},
                 {"tokenizer_config.json",
                  R"({"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": false})"}},
                "A"),
            (Ids{5}));
  EXPECT_THAT(
      refusal({{"tokenizer.json", json},
               {"tokenizer_config.json", R"({"tokenizer_class": "GPT2Tokenizer"})"}}),
      ThrowsMessage<Error>(HasSubstr("contains a WordPiece model, but a GPT2Tokenizer needs BPE")));
}

TEST(TokenizerFolder, VocabAndMergesAreReadByTheNamedClass) {
  const Files files = {
      {"vocab.json", R"({"a": 0, "b": 1, "ab": 2, "\u0120": 3, "\u0120a": 4, "<|endoftext|>": 5})"},
      {"merges.txt", "#version: 0.2\na b\n\u0120 a\n"},
      {"tokenizer_config.json",
       R"({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": true, "add_bos_token": true})"}};
  EXPECT_EQ(ids(files, "ab a"), (Ids{5, 3, 2, 4}));
  auto without = files;
  without.erase("merges.txt");
  EXPECT_THAT(refusal(without), ThrowsMessage<Error>(HasSubstr("the merges.txt that a")));
  auto wrong = files;
  wrong["merges.txt"] = "a b\nthree parts here\n";
  EXPECT_THAT(refusal(wrong), ThrowsMessage<Error>(HasSubstr("merges.txt:2: must be two tokens")));
  auto unnamed = files;
  unnamed.erase("tokenizer_config.json");
  EXPECT_THAT(
      refusal(unnamed),
      ThrowsMessage<Error>(HasSubstr("tokenizer_class does not define how to read vocab.json")));
}

TEST(TokenizerFolder, WhatCannotBeHonouredIsRefusedByFileAndKey) {
  const auto expect = [](const std::string& config, const std::string& message) {
    EXPECT_THAT(refusal(bert(config)), ThrowsMessage<Error>(HasSubstr(message))) << config;
  };
  expect(R"({"split_special_tokens": true})",
         "tokenizer_config.json: \"split_special_tokens\": true is not supported");
  expect(R"({"do_lower_case": "no"})",
         "tokenizer_config.json: \"do_lower_case\" must be true or false, but is \"no\"");
  expect(R"({"unk_token": 7})", "tokenizer_config.json: \"unk_token\" must be a token, but is 7");
  expect(R"({"added_tokens_decoder": {"x": {"content": "a"}}})",
         "\"added_tokens_decoder\" has the key 'x', which is not an id");
  expect(R"({"fast_tokenizer_files": ["tokenizer.4.0.0.json"]})",
         "\"fast_tokenizer_files\" names \"tokenizer.4.0.0.json\"");
  expect(R"({"tokenizer_class": "ByT5Tokenizer"})",
         "has the class ByT5Tokenizer (tokenizer_class in tokenizer_config.json");
  EXPECT_THAT(
      refusal(
          {{"tokenizer_config.json",
            R"({"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.Own", null]}})"}}),
      ThrowsMessage<Error>(HasSubstr("\"auto_map\" names the model's own Python code")));
}

// SentencePiece

std::string varint(std::uint64_t number) {
  std::string bytes;
  for (; number > 127; number >>= 7) bytes += static_cast<char>((number & 127) | 128);
  return bytes + static_cast<char>(number);
}

std::string field(int id, std::uint64_t number) {
  return varint(static_cast<std::uint64_t>(id) << 3) + varint(number);
}
std::string field(int id, const std::string& bytes) {
  return varint((static_cast<std::uint64_t>(id) << 3) | 2) + varint(bytes.size()) + bytes;
}
std::string field(int id, float number) {
  return varint((static_cast<std::uint64_t>(id) << 3) | 5) +
         std::string(reinterpret_cast<const char*>(&number), sizeof number);
}

std::string piece(const std::string& text, float score, int kind = 1) {
  return field(1, field(1, text) + field(2, score) + field(3, static_cast<std::uint64_t>(kind)));
}

std::string sentencepiece(std::uint64_t type) {
  return piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("\u2581", -3) +
         piece("a", -2) + piece("b", -2.5F) + piece("ab", -1) + piece("<x>", 0, 4) +
         field(2, field(3, type) + field(40, std::uint64_t{0}));
}

TEST(SentencePiece, TheFieldsOfTheModelAreRead) {
  const auto model = text::read_sentencepiece(sentencepiece(2), "tokenizer.model");
  EXPECT_EQ(model.pieces.size(), 8U);
  EXPECT_EQ(model.pieces[6].text, "ab");
  EXPECT_EQ(model.pieces[6].score, -1);
  EXPECT_EQ(model.pieces[7].kind, text::SentencePieceModel::Kind::user_defined);
  EXPECT_EQ(model.type, text::SentencePieceModel::Type::bpe);
}

TEST(SentencePiece, AModelServesWithoutATokenizerJson) {
  const std::string llama = R"({"tokenizer_class": "LlamaTokenizer", "add_bos_token": true})";
  EXPECT_EQ(
      ids({{"tokenizer.model", sentencepiece(2)}, {"tokenizer_config.json", llama}}, "ab<x>b</s>"),
      (Ids{1, 3, 6, 7, 5, 2}));
  EXPECT_EQ(ids({{"tokenizer.model", sentencepiece(1)}}, "ab a"), (Ids{6, 3, 4}));
}

TEST(SentencePiece, DamagedModelsAreRefused) {
  const auto whole = sentencepiece(1);
  const auto read = [](std::string bytes) {
    return [bytes] { text::read_sentencepiece(bytes, "m"); };
  };
  EXPECT_THAT(read(""), ThrowsMessage<Error>(HasSubstr("m: is not a SentencePiece model")));
  EXPECT_THAT(read("\x0a\xff\xff\xff\x7f"),
              ThrowsMessage<Error>(HasSubstr("is not a SentencePiece model, or is damaged")));
  EXPECT_THAT(read(sentencepiece(3)), ThrowsMessage<Error>(HasSubstr("of the type 3")));
  EXPECT_THAT(read(whole + field(2, field(40, std::uint64_t{9}))),
              ThrowsMessage<Error>(HasSubstr("has the id 9, but there are 8 pieces")));
  std::mt19937 random(4);
  int accepted = 0;
  for (int i = 0; i < 2000; ++i) {
    auto bytes = whole;
    bytes[random() % bytes.size()] = static_cast<char>(random());
    try {
      Tokenizer(tokenizer_of({{"tokenizer.model", bytes}})).encode("ab a");
      ++accepted;
    } catch (const Error&) {
    }
  }
  EXPECT_GT(accepted, 100);
  EXPECT_LT(accepted, 1990);
}

TEST(RankedBytes, TekkenAndTiktokenGiveTheRanksAsIds) {
  const std::string tekken =
      R"({"config": {"pattern": "\\w+|\\W", "default_vocab_size": 6, "default_num_special_tokens": 3},
    "vocab": [{"rank": 0, "token_bytes": "YQ=="}, {"rank": 1, "token_bytes": "Yg=="}, {"rank": 2, "token_bytes": "YWI="}, {"rank": 3, "token_bytes": "Yw=="}],
    "special_tokens": [{"rank": 0, "token_str": "<unk>"}, {"rank": 1, "token_str": "<s>"}]})";
  EXPECT_EQ(ids({{"tekken.json", tekken}}, "<s>ab<SPECIAL_2>ba"), (Ids{1, 5, 2, 4, 3}));
  const std::string tiktoken = "YQ== 0\nYg== 1\nYWI= 2\n";
  const std::string config =
      R"({"added_tokens_decoder": {"4": {"content": "<s>", "special": true}}})";
  EXPECT_EQ(ids({{"tiktoken.model", tiktoken}, {"tokenizer_config.json", config}},
                "ab<s>ba<|reserved_token_3|>"),
            (Ids{2, 4, 1, 0, 3}));
  EXPECT_THAT(
      refusal({{"tokenizer.model", "YQ== 0\nYg== 0\n"}}),
      ThrowsMessage<Error>(HasSubstr("tokenizer.model: has the rank 0 or its token twice")));
  EXPECT_THAT(
      refusal({{"tokenizer.model", "YQ== 0\nYg==\n"}}),
      ThrowsMessage<Error>(HasSubstr("tokenizer.model:2: must be a token in base64 and its rank")));
}

}  // namespace
}  // namespace attune
