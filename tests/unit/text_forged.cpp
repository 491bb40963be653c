// Damaged and forged tokenizer.json files and GGUF vocabularies: an Error or a tokenizer, never a
// crash.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "attune/error.hpp"
#include "attune/tokenizer.hpp"
#include "text/convert.hpp"

namespace attune {
namespace {

using Json = nlohmann::json;

const std::vector<Json>& whole_files() {
  static const std::vector<Json> files = {
      Json::parse(
          R"({"added_tokens": [{"id": 4, "content": "<s>", "special": true, "lstrip": true, "normalized": false}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "_"}, {"type": "NFKC"}, {"type": "Strip"}, {"type": "BertNormalizer"},
          {"type": "Replace", "pattern": {"Regex": "a+|\\s"}, "content": "_"}, {"type": "Precompiled", "precompiled_charsmap": "CAAAAAAAAAAAAAAAYQA="}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": true},
          {"type": "Split", "pattern": {"String": "b"}, "behavior": "MergedWithNext", "invert": true}, {"type": "Digits", "individual_digits": true},
          {"type": "ByteLevel", "add_prefix_space": true}, {"type": "FixedLength", "length": 3}, {"type": "CharDelimiterSplit", "delimiter": "-"}]},
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
          "special_tokens": {"<s>": {"id": "<s>", "ids": [4], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 2},
          {"type": "Metaspace", "replacement": "_"}, {"type": "CTC"}, {"type": "WordPiece"}, {"type": "BPEDecoder"}]},
        "model": {"type": "BPE", "unk_token": "u", "byte_fallback": true, "fuse_unk": true, "vocab": {"a": 0, "b": 1, "ab": 2, "u": 3}, "merges": ["a b"]}})"),
      Json::parse(
          R"({"model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": [["<unk>", 0.0], ["a", -1.5], ["ab", -2.5]]},
        "post_processor": {"type": "RobertaProcessing", "sep": ["a", 1], "cls": ["ab", 2], "trim_offsets": true, "add_prefix_space": true}})"),
      Json::parse(
          R"({"model": {"type": "WordPiece", "unk_token": "[UNK]", "max_input_chars_per_word": 9, "vocab": {"[UNK]": 0, "a": 1, "##b": 2}},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": {"type": "BertProcessing", "sep": ["a", 1], "cls": ["a", 1]}})"),
  };
  return files;
}

const Json& gguf() {
  static const Json metadata = {{"tokenizer.ggml.model", "llama"},
                                {"tokenizer.ggml.tokens", {"<s>", "a", "b", "ab"}},
                                {"tokenizer.ggml.scores", {0, -1, -2, -3}},
                                {"tokenizer.ggml.token_type", {3, 1, 1, 1}},
                                {"tokenizer.ggml.bos_token_id", 0}};
  return metadata;
}

std::vector<Json*> nodes(Json& json) {
  std::vector<Json*> all = {&json};
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all[i]->is_structured())
      for (auto& child : *all[i]) all.push_back(&child);
  return all;
}

Json odd_value(std::mt19937& random) {
  static const std::vector<Json> values = {nullptr,
                                           true,
                                           false,
                                           -1,
                                           0,
                                           1,
                                           4294967296,
                                           1e300,
                                           -1e-300,
                                           18446744073709551615u,
                                           "",
                                           "\u2581",
                                           "(((",
                                           "[a-z&&[^b]",
                                           "<0x00>",
                                           Json::array(),
                                           Json::object(),
                                           {"a", "b"},
                                           {{"type", "Sequence"}},
                                           {{"type", "ByteLevel"}},
                                           std::string(1000, 'x')};
  return values[random() % values.size()];
}

void damage(Json& json, std::mt19937& random) {
  for (auto times = 1 + random() % 3; times > 0; --times) {
    const auto all = nodes(json);
    auto& node = *all[random() % all.size()];
    if (node.is_object() && !node.empty() && random() % 2)
      node.erase(std::next(node.begin(), static_cast<std::ptrdiff_t>(random() % node.size())));
    else if (random() % 4 == 0)
      node = *all[random() % all.size()];
    else
      node = odd_value(random);
  }
}

/// Whatever it is, it is read or refused; what is read tokenizes.
bool is_accepted(const Json& json) {
  try {
    const Tokenizer tokenizer(json);
    for (const char* text : {"",
                             "ab a<s> \u00e9 12\xFF"
                             "b-b",
                             "aaaa  bbbb"}) {
      const auto encoding = tokenizer.encode_with_spans(text);
      EXPECT_EQ(encoding.ids.size(), encoding.spans.size());
      tokenizer.decode(encoding.ids);
    }
    return true;
  } catch (const Error&) {
    return false;
  }
}

TEST(ForgedFiles, EachPartDamagedInTurnIsReadOrRefused) {
  std::mt19937 random(1);
  int accepted = 0;
  for (const auto& file : whole_files()) {
    ASSERT_TRUE(is_accepted(file));
    for (int i = 0; i < 3000; ++i) {
      auto json = file;
      damage(json, random);
      accepted += is_accepted(json);
    }
  }
  EXPECT_GT(accepted, 500);  // not everything is refused for one reason
  EXPECT_LT(accepted, 8500);
}

TEST(ForgedFiles, GgufVocabularyIsReadOrRefused) {
  std::mt19937 random(2);
  for (const char* model : {"llama", "t5", "bert", "gpt2"})
    for (int i = 0; i < 1000; ++i) {
      auto json = gguf();
      json["tokenizer.ggml.model"] = model;
      damage(json, random);
      try {
        is_accepted(text::tokenizer_json_from_gguf(json));
      } catch (const Error&) {
      }
    }
}

TEST(ForgedFiles, ScoresThatAreNoNumbersAndPiecesWithoutEndAreRefused) {
  const auto refusal = [](const char* key, std::size_t id, const Json& value) {
    auto json = gguf();
    json[key][id] = value;
    return [json] { text::tokenizer_json_from_gguf(json); };
  };
  EXPECT_THAT(refusal("tokenizer.ggml.scores", 1, std::nan("")),
              testing::ThrowsMessage<Error>(testing::HasSubstr("scores that are not numbers")));
  EXPECT_THAT(refusal("tokenizer.ggml.tokens", 1, std::string(5000, 'a')),
              testing::ThrowsMessage<Error>(testing::HasSubstr("a piece of 5000 bytes")));
}

TEST(ForgedFiles, APatternThatCutsCharactersIsRefused) {
  auto json = whole_files()[2];
  json["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", "\\C"}}}, {"behavior", "Isolated"}};
  EXPECT_THAT([&] { Tokenizer tokenizer(json); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("does not compile")));
}

TEST(ForgedFiles, SequencesInOneAnotherDoNotExhaustTheStack) {
  Json normalizer = {{"type", "NFC"}};
  for (int i = 0; i < 1000; ++i)
    normalizer = {{"type", "Sequence"}, {"normalizers", Json::array({std::move(normalizer)})}};
  EXPECT_THAT(
      [&] { Tokenizer({{"model", whole_files()[0].at("model")}, {"normalizer", normalizer}}); },
      testing::ThrowsMessage<Error>(testing::HasSubstr("nested Sequences")));
}

}  // namespace
}  // namespace attune
