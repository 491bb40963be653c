// The stages of a tokenizer, one by one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "attune/error.hpp"
#include "text/added_tokens.hpp"
#include "text/byte_level.hpp"
#include "text/decoder.hpp"
#include "text/model.hpp"
#include "text/normalizer.hpp"
#include "text/pattern.hpp"
#include "text/post_processor.hpp"
#include "text/pre_tokenizer.hpp"
#include "text/unicode.hpp"

namespace attune::text {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<std::int32_t>;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::string normalized(const char* json, std::string_view text) {
  AlignedText rewritten(text);
  make_normalizer(Json::parse(json))(rewritten);
  return rewritten.bytes();
}

std::vector<std::string> words(const char* json, const std::string& text) {
  Words words{AlignedText(text), {{0, text.size()}}};
  make_pre_tokenizer(Json::parse(json))(words);
  std::vector<std::string> result;
  for (std::size_t i = 0; i < words.spans.size(); ++i) result.emplace_back(words[i]);
  return result;
}

std::string decoded(const char* json, std::vector<std::string> tokens) {
  make_decoder(Json::parse(json))(tokens);
  std::string text;
  for (const auto& token : tokens) text += token;
  return text;
}

Ids encoded(const Json& json, std::string_view word) {
  Ids ids;
  make_model(json).encode(word, [&](const Pieces& pieces, std::size_t) { ids.insert(ids.end(), pieces.ids.begin(), pieces.ids.end()); });
  return ids;
}

Json bpe(const Json& extra = Json::object()) {
  Json json = Json::parse(R"({"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4, "abc": 5, "<unk>": 6},
                              "merges": ["b c", ["a", "b"], "ab c"]})");
  json.update(extra);
  return json;
}

TEST(Unicode, EachIllFormedSequenceBecomesOneReplacementCharacter) {
  EXPECT_EQ(valid_utf8("a\xFFz"), "a\uFFFDz");
  EXPECT_EQ(valid_utf8("\xE2\x82"), "\uFFFD");              // a truncated character
  EXPECT_EQ(valid_utf8("\xF0\x9F\x98x"), "\uFFFDx");
  EXPECT_EQ(valid_utf8("\xC0\xAF"), "\uFFFD\uFFFD");         // overlong
  EXPECT_EQ(valid_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");  // a surrogate
  EXPECT_EQ(valid_utf8("caf\u00e9 \U0001F642"), "caf\u00e9 \U0001F642");
}

TEST(Pattern, WhiteSpaceIsUnicodesAndNotPcres) {
  std::vector<Span> found;
  Pattern(R"(\s)").find_all("\u180e\u0085\u3000", found);
  EXPECT_EQ(found.size(), 2u);
}

TEST(Pattern, ExpressionThatDoesNotCompileIsRefused) {
  EXPECT_THAT([] { Pattern("a("); }, ThrowsMessage<Error>(HasSubstr("'a(' does not compile")));
}

TEST(Pattern, EmptyMatchesEndAndAreLeftOut) {
  std::vector<Span> found;
  Pattern("x*").find_all("a\u00e9xx", found);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].begin, 3u);
}

TEST(ByteLevel, EveryByteComesBack) {
  std::string bytes, characters;
  for (int b = 0; b < 256; ++b) bytes += static_cast<char>(b);
  append_byte_characters(characters, bytes);
  EXPECT_EQ(count_code_points(characters), 256u);
  EXPECT_EQ(bytes_of_characters(characters), bytes);
  EXPECT_EQ(bytes_of_characters("\u4e2d"), std::nullopt);
}

TEST(Normalizers, EachDoesItsPart) {
  EXPECT_EQ(normalized("null", "\u00c9\t"), "\u00c9\t");
  EXPECT_EQ(normalized(R"({"type": "NFC"})", "e\u0301"), "\u00e9");
  EXPECT_EQ(normalized(R"({"type": "NFD"})", "\u00e9"), "e\u0301");
  EXPECT_EQ(normalized(R"({"type": "NFKC"})", "\ufb01"), "fi");
  EXPECT_EQ(normalized(R"({"type": "NFKD"})", "\u00bd"), "1\u20442");
  EXPECT_EQ(normalized(R"({"type": "Lowercase"})", "A\u00c9\u0130"), "a\u00e9i\u0307");
  EXPECT_EQ(normalized(R"({"type": "BertNormalizer"})", "\u00c9t\u00e9\u4e2d\tX\x01"), "ete \u4e2d  x");
  EXPECT_EQ(normalized(R"({"type": "BertNormalizer", "lowercase": false})", "\u00c9t"), "\u00c9t");
  EXPECT_EQ(normalized(R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]})", "E\u0301"), "\u00e9");
}

TEST(PreTokenizers, EachCutsInItsWay) {
  EXPECT_THAT(words("null", "a b"), ElementsAre("a b"));
  EXPECT_THAT(words(R"({"type": "ByteLevel", "add_prefix_space": false})", "Hi there  you'll"), ElementsAre("Hi", "\u0120there", "\u0120", "\u0120you", "'ll"));
  EXPECT_THAT(words(R"({"type": "ByteLevel", "add_prefix_space": true, "use_regex": false})", "a b"), ElementsAre("\u0120a\u0120b"));
  EXPECT_THAT(words(R"({"type": "Digits", "individual_digits": true})", "a12"), ElementsAre("a", "1", "2"));
  EXPECT_THAT(words(R"({"type": "Digits", "individual_digits": false})", "a12b"), ElementsAre("a", "12", "b"));
  EXPECT_THAT(words(R"({"type": "BertPreTokenizer"})", "it's (here)\u3002"), ElementsAre("it", "'", "s", "(", "here", ")", "\u3002"));
  EXPECT_THAT(words(R"({"type": "Whitespace"})", " it's e\u0301 "), ElementsAre("it", "'", "s", "e\u0301"));
}

TEST(PreTokenizers, SplitHasFiveBehaviours) {
  const auto split = [](const std::string& behaviour, const std::string& rest = "") {
    return words((R"({"type": "Split", "pattern": {"String": "-"}, "behavior": ")" + behaviour + "\"" + rest + "}").c_str(), "the-final--countdown");
  };
  EXPECT_THAT(split("Removed"), ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(split("Isolated"), ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(split("Contiguous"), ElementsAre("the", "-", "final", "--", "countdown"));
  EXPECT_THAT(split("MergedWithPrevious"), ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(split("MergedWithNext"), ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(split("Removed", R"(, "invert": true)"), ElementsAre("-", "-", "-"));
  EXPECT_THAT([&] { split("Sideways"); }, ThrowsMessage<Error>(HasSubstr("'Sideways'")));
}

TEST(Bpe, MergesInTheOrderOfRank) {
  EXPECT_EQ(encoded(bpe(), "abc"), (Ids{0, 4}));  // "b c" comes before "a b"
  EXPECT_EQ(encoded(bpe(), "abab"), (Ids{3, 3}));
  EXPECT_EQ(encoded(bpe({{"ignore_merges", true}}), "abc"), (Ids{5}));
  EXPECT_EQ(encoded(bpe(), ""), Ids{});
}

TEST(Bpe, UnknownCharactersAreDroppedMarkedOrFused) {
  EXPECT_EQ(encoded(bpe(), "a\u00e9\u00e9b"), (Ids{3}));
  EXPECT_EQ(encoded(bpe({{"unk_token", "<unk>"}}), "a\u00e9\u00e9b"), (Ids{0, 6, 6, 1}));
  EXPECT_EQ(encoded(bpe({{"unk_token", "<unk>"}, {"fuse_unk", true}}), "a\u00e9\u00e9b"), (Ids{0, 6, 1}));
}

TEST(Bpe, WhatItDoesNotDoIsRefused) {
  const auto refusal = [](const Json& extra, const char* text) { EXPECT_THAT([&] { make_model(bpe(extra)); }, ThrowsMessage<Error>(HasSubstr(text))); };
  refusal({{"dropout", 0.1}}, "dropout");
  refusal({{"merges", {"a z"}}}, "needs the token 'az'");
  refusal({{"merges", {"abc"}}}, "merge 0 must be two tokens");
  refusal({{"unk_token", "?"}}, "'?' is not in the BPE vocab");
  refusal({{"vocab", {{"a", -1}}}}, "whole number");
  refusal({{"vocab", {{"a", 4294967296}}}}, "whole number");
  refusal({{"vocab", Json::array()}}, "must be an object");
  EXPECT_THAT([] { make_model({{"type", "Huffman"}}); }, ThrowsMessage<Error>(HasSubstr("the model 'Huffman' is not supported; supported are BPE, Unigram, WordLevel, WordPiece")));
}

TEST(WordPiece, TakesTheLongestPieceOrMarksTheWholeWord) {
  const Json json = {{"type", "WordPiece"}, {"vocab", {{"[UNK]", 0}, {"un", 1}, {"##aff", 2}, {"##able", 3}, {"##a", 4}}}, {"max_input_chars_per_word", 9}};
  EXPECT_EQ(encoded(json, "unaffable"), (Ids{1, 2, 3}));
  EXPECT_EQ(encoded(json, "unaz"), (Ids{0}));
  EXPECT_EQ(encoded(json, "unaffablea"), (Ids{0}));  // ten characters
  EXPECT_THAT([] { make_model({{"type", "WordPiece"}, {"vocab", {{"a", 0}}}}); }, ThrowsMessage<Error>(HasSubstr("'[UNK]' is not in the WordPiece vocab")));
}

TEST(AddedTokens, TheLongestIsFoundAndFlagsAreKept) {
  const Json json = Json::parse(R"([{"id": 0, "content": "<a>"}, {"id": 1, "content": "<a>b"}, {"id": 2, "content": "<l>", "lstrip": true},
                                    {"id": 3, "content": "<r>", "rstrip": true}, {"id": 4, "content": "at", "single_word": true}])");
  Json raw = json;
  for (auto& token : raw) token["normalized"] = false;
  const AddedTokens added(raw, make_normalizer(nullptr));
  const auto cut = [&](std::string_view text) {
    std::vector<std::pair<std::string, int>> result;
    for (const auto& segment : added.cut_raw(text)) result.emplace_back(text.substr(segment.span.begin, segment.span.end - segment.span.begin), segment.id.value_or(-1));
    return result;
  };
  using Cut = std::vector<std::pair<std::string, int>>;
  EXPECT_EQ(cut("x<a>bc<a>"), (Cut{{"x", -1}, {"<a>b", 1}, {"c", -1}, {"<a>", 0}}));
  EXPECT_EQ(cut("x  <l> y"), (Cut{{"x", -1}, {"  <l>", 2}, {" y", -1}}));
  EXPECT_EQ(cut("x <r>\n y"), (Cut{{"x ", -1}, {"<r>\n ", 3}, {"y", -1}}));
  EXPECT_EQ(cut("at that"), (Cut{{"at", 4}, {" that", -1}}));
  EXPECT_EQ(cut(""), Cut{});
}

TEST(AddedTokens, NormalizedOnesAreFoundInTheNormalisedText) {
  const auto lower = make_normalizer({{"type", "Lowercase"}});
  const AddedTokens added(Json::parse(R"([{"id": 0, "content": "<A>", "normalized": true}, {"id": 1, "content": "<B>", "normalized": false}])"), lower);
  EXPECT_EQ(added.cut_normalized("x<a>").back().id, 0);
  EXPECT_EQ(added.cut_raw("<A>").back().id, std::nullopt);
  EXPECT_EQ(added.cut_raw("<B>").back().id, 1);
}

TEST(PostProcessors, SurroundTheTextOnce) {
  const auto processed = [](const char* json) {
    Ids ids = {7};
    const auto processor = make_post_processor(Json::parse(json));
    ids.insert(ids.begin(), processor.before.begin(), processor.before.end());
    ids.insert(ids.end(), processor.after.begin(), processor.after.end());
    return ids;
  };
  EXPECT_EQ(processed("null"), (Ids{7}));
  EXPECT_EQ(processed(R"({"type": "ByteLevel"})"), (Ids{7}));
  EXPECT_EQ(processed(R"({"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]})"), (Ids{1, 7, 2}));
  EXPECT_EQ(processed(R"({"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}]})"), (Ids{1, 7}));
  EXPECT_THAT([&] { processed(R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}], "special_tokens": {}})"); },
              ThrowsMessage<Error>(HasSubstr("names '<s>'")));
  EXPECT_THAT([&] { processed(R"({"type": "TemplateProcessing", "single": [], "special_tokens": {}})"); }, ThrowsMessage<Error>(HasSubstr("does not hold the text")));
}

TEST(Decoders, EachGoesItsWayBack) {
  EXPECT_EQ(decoded("null", {"a", "b"}), "a b");
  EXPECT_EQ(decoded(R"({"type": "ByteLevel"})", {"\u0120a", "\u00c3", "\u00a9", "<a b>"}), " a\u00e9<a b>");
  EXPECT_EQ(decoded(R"({"type": "WordPiece", "prefix": "##", "cleanup": true})", {"un", "##able", "to", "."}), "unable to.");
  EXPECT_EQ(decoded(R"({"type": "WordPiece", "prefix": "##", "cleanup": false})", {"to", "."}), "to .");
  EXPECT_EQ(decoded(R"({"type": "Sequence", "decoders": [{"type": "ByteLevel"}]})", {"\u0120a"}), " a");
}

TEST(Parts, UnsupportedOnesAreNamedWithThoseThatAre) {
  EXPECT_THAT([] { make_normalizer({{"type", "Odd"}}); }, ThrowsMessage<Error>(HasSubstr("the normalizer 'Odd' is not supported; supported are BertNormalizer")));
  EXPECT_THAT([] { make_pre_tokenizer({{"type", "Odd"}}); }, ThrowsMessage<Error>(HasSubstr("the pre-tokenizer 'Odd' is not supported")));
  EXPECT_THAT([] { make_post_processor({{"type", "Odd"}}); }, ThrowsMessage<Error>(HasSubstr("the post-processor 'Odd' is not supported")));
  EXPECT_THAT([] { make_decoder({{"type", "Odd"}}); }, ThrowsMessage<Error>(HasSubstr("the decoder 'Odd' is not supported; supported are BPEDecoder")));
}

}  // namespace
}  // namespace attune::text
