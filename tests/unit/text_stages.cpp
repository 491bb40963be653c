// The stages of a tokenizer, one by one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "attune/error.hpp"
#include "text/added_tokens.hpp"
#include "text/base64.hpp"
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
  make_model(json).encode(word, [&](const Pieces& pieces, std::size_t) {
    ids.insert(ids.end(), pieces.ids.begin(), pieces.ids.end());
  });
  return ids;
}

Json bpe(const Json& extra = Json::object()) {
  Json json = Json::parse(
      R"({"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4, "abc": 5, "<unk>": 6},
                              "merges": ["b c", ["a", "b"], "ab c"]})");
  json.update(extra);
  return json;
}

TEST(Unicode, EachIllFormedSequenceBecomesOneReplacementCharacter) {
  EXPECT_EQ(valid_utf8("a\xFFz"), "a\uFFFDz");
  EXPECT_EQ(valid_utf8("\xE2\x82"), "\uFFFD");  // a truncated character
  EXPECT_EQ(valid_utf8("\xF0\x9F\x98x"), "\uFFFDx");
  EXPECT_EQ(valid_utf8("\xC0\xAF"), "\uFFFD\uFFFD");            // overlong
  EXPECT_EQ(valid_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");  // a surrogate
  EXPECT_EQ(valid_utf8("caf\u00e9 \U0001F642"), "caf\u00e9 \U0001F642");
}

TEST(Pattern, WhiteSpaceIsUnicodesAndNotPcres) {
  std::vector<Span> found;
  Pattern(R"(\s)").find_all("\u180e\u0085\u3000", found);
  EXPECT_EQ(found.size(), 2u);
}

TEST(Pattern, RubysSyntaxIsUnderstood) {
  const auto matches = [](const char* expression, std::string_view text) {
    std::vector<Span> found;
    Pattern(expression).find_all(text, found);
    std::vector<std::string> result;
    for (const auto& [begin, end] : found) result.emplace_back(text.substr(begin, end - begin));
    return result;
  };
  EXPECT_THAT(matches(R"( ?[^(\s|[.,!])]+)", "ab. c"),
              ElementsAre("ab", " c"));  // a class in a class, as BLOOM's
  EXPECT_THAT(matches(R"(\h+)", "xFf0g"), ElementsAre("Ff0"));
  EXPECT_THAT(matches(R"(\w+)", "e\u0301_1 \u00b2"), ElementsAre("e\u0301_1"));
  EXPECT_THAT(matches(R"(\bb)", "ab b"), ElementsAre("b"));
  EXPECT_THAT(matches("[]a]+", "]a"), ElementsAre("]a"));
  EXPECT_THAT([&] { matches("[a-z&&[^b]]", ""); },
              ThrowsMessage<Error>(HasSubstr("not supported")));
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
  std::string bytes;
  std::string characters;
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
  EXPECT_EQ(normalized(R"({"type": "BertNormalizer"})", "\u00c9t\u00e9\u4e2d\tX\x01"),
            "ete \u4e2d  x");
  EXPECT_EQ(normalized(R"({"type": "BertNormalizer", "lowercase": false})", "\u00c9t"), "\u00c9t");
  EXPECT_EQ(
      normalized(R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]})",
                 "E\u0301"),
      "\u00e9");
}

TEST(PreTokenizers, EachCutsInItsWay) {
  EXPECT_THAT(words("null", "a b"), ElementsAre("a b"));
  EXPECT_THAT(words(R"({"type": "ByteLevel", "add_prefix_space": false})", "Hi there  you'll"),
              ElementsAre("Hi", "\u0120there", "\u0120", "\u0120you", "'ll"));
  EXPECT_THAT(
      words(R"({"type": "ByteLevel", "add_prefix_space": true, "use_regex": false})", "a b"),
      ElementsAre("\u0120a\u0120b"));
  EXPECT_THAT(words(R"({"type": "Digits", "individual_digits": true})", "a12"),
              ElementsAre("a", "1", "2"));
  EXPECT_THAT(words(R"({"type": "Digits", "individual_digits": false})", "a12b"),
              ElementsAre("a", "12", "b"));
  EXPECT_THAT(words(R"({"type": "BertPreTokenizer"})", "it's (here)\u3002"),
              ElementsAre("it", "'", "s", "(", "here", ")", "\u3002"));
  EXPECT_THAT(words(R"({"type": "Whitespace"})", " it's e\u0301 "),
              ElementsAre("it", "'", "s", "e\u0301"));
}

TEST(Normalizers, SentencePiecesDoTheirs) {
  EXPECT_EQ(normalized(R"({"type": "Prepend", "prepend": "\u2581"})", "a"), "\u2581a");
  EXPECT_EQ(normalized(R"({"type": "Prepend", "prepend": "\u2581"})", ""), "");
  EXPECT_EQ(
      normalized(R"({"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"})", " a b"),
      "\u2581a\u2581b");
  EXPECT_EQ(normalized(R"({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})",
                       "a   b c"),
            "a b c");
  EXPECT_EQ(
      normalized(R"({"type": "Strip", "strip_left": true, "strip_right": false})", " a\u3000"),
      "a\u3000");
  EXPECT_EQ(normalized(R"({"type": "Strip", "strip_left": true, "strip_right": true})", " \n "),
            "");
  EXPECT_EQ(normalized(R"({"type": "StripAccents"})", "e\u0301"), "e");
  EXPECT_EQ(normalized(R"({"type": "Nmt"})", "a\x01\tb\u200b"), "a b ");
  EXPECT_EQ(normalized(R"({"type": "ByteLevel"})", " \u00e9"), "\u0120\u00c3\u00a9");
}

/// A charsmap of one key, "\u00aa" (C2 AA), which becomes "a".
std::string small_charsmap() {
  std::vector<std::uint32_t> units(4 * 256);
  units[0] = 256u << 10;                                   // children of the root: from 256
  units[256 ^ 0xC2] = 0xC2 | ((256 ^ 0xC2) ^ 512u) << 10;  // from 512
  units[512 ^ 0xAA] = 0xAA | 1u << 8 | ((512 ^ 0xAA) ^ 768u) << 10;
  units[768] = 1u << 31;  // the text at 0
  std::string bytes(4 + units.size() * 4, '\0');
  const auto size = static_cast<std::uint32_t>(units.size() * 4);
  std::memcpy(bytes.data(), &size, 4);
  std::memcpy(bytes.data() + 4, units.data(), size);
  return bytes + std::string("a\0", 2);
}

TEST(Normalizers, PrecompiledLooksUpItsTrie) {
  const auto map = [](const std::string& bytes) {
    return Json{{"type", "Precompiled"}, {"precompiled_charsmap", to_base64(bytes)}}.dump();
  };
  EXPECT_EQ(normalized(map(small_charsmap()).c_str(), "x\u00aay"), "xay");
  EXPECT_THAT([&] { normalized(map("abc").c_str(), ""); },
              ThrowsMessage<Error>(HasSubstr("is truncated")));
  EXPECT_THAT([&] { normalized(map("\xFC\xFF\xFF\xFFxxxx").c_str(), ""); },
              ThrowsMessage<Error>(HasSubstr("should have 4294967292 bytes")));
  EXPECT_THAT([&] { normalized(R"({"type": "Precompiled", "precompiled_charsmap": "?"})", ""); },
              ThrowsMessage<Error>(HasSubstr("not base64")));
  auto forged = small_charsmap();
  // offsets that lead anywhere
  for (std::size_t i = 4; i < forged.size(); i += 3) forged[i] = '\xC2';
  normalized(map(forged).c_str(), "x\u00aay");
}

TEST(Normalizers, KeepTrackOfTheOriginalBytes) {
  const auto origins = [](const char* json, std::string_view text) {
    auto rewritten = aligned_valid_utf8(text);
    make_normalizer(Json::parse(json))(rewritten);
    std::vector<Span> spans;
    for (std::size_t i = 0; i < rewritten.bytes().size(); ++i) spans.push_back(rewritten.origin(i));
    return spans;
  };
  EXPECT_THAT(origins(R"({"type": "NFC"})", "e\u0301x"),
              ElementsAre(Span{0, 1}, Span{0, 1}, Span{3, 4}));
  EXPECT_THAT(origins(R"({"type": "NFKC"})", "\ufb01"), ElementsAre(Span{0, 3}, Span{0, 3}));
  EXPECT_THAT(origins(R"({"type": "Strip"})", "  a"), ElementsAre(Span{2, 3}));
  EXPECT_THAT(origins(R"({"type": "Prepend", "prepend": "_"})", "ab"),
              ElementsAre(Span{0, 1}, Span{0, 1}, Span{1, 2}));
  EXPECT_THAT(origins(R"({"type": "Lowercase"})",
                      "\xFF"
                      "A"),
              ElementsAre(Span{0, 1}, Span{0, 1}, Span{0, 1}, Span{1, 2}));
}

TEST(PreTokenizers, SentencePiecesAndTheRestCutInTheirs) {
  EXPECT_THAT(
      words(
          R"({"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": true})",
          "Hey  you"),
      ElementsAre("\u2581Hey", "\u2581", "\u2581you"));
  EXPECT_THAT(
      words(
          R"({"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never", "split": false})",
          "Hey you"),
      ElementsAre("Hey\u2581you"));
  EXPECT_THAT(
      words(
          R"({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Metaspace", "prepend_scheme": "first"}]})",
          "a b"),
      ElementsAre("\u2581a", "b"));
  EXPECT_THAT(
      words(
          R"({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Metaspace", "prepend_scheme": "first"}]})",
          " a b"),
      ElementsAre("a", "b"));
  EXPECT_THAT(words(R"({"type": "Punctuation", "behavior": "MergedWithPrevious"})", "Hey, you!"),
              ElementsAre("Hey,", " you!"));
  EXPECT_THAT(words(R"({"type": "CharDelimiterSplit", "delimiter": "-"})", "a-b--c"),
              ElementsAre("a", "b", "c"));
  EXPECT_THAT(words(R"({"type": "FixedLength", "length": 2})", "a\u00e9b"),
              ElementsAre("a\u00e9", "b"));
  EXPECT_THAT(words(R"({"type": "UnicodeScripts"})", "\u3069\u3053Yes"),
              ElementsAre("\u3069\u3053", "Yes"));
  EXPECT_THAT([] { words(R"({"type": "FixedLength", "length": 0})", "a"); },
              ThrowsMessage<Error>(HasSubstr("must be 1 or more")));
  EXPECT_THAT([] { words(R"({"type": "Metaspace", "prepend_scheme": "often"})", "a"); },
              ThrowsMessage<Error>(HasSubstr("'often'")));
}

TEST(PreTokenizers, SplitHasFiveBehaviours) {
  const auto split = [](const std::string& behaviour, const std::string& rest = "") {
    return words((R"({"type": "Split", "pattern": {"String": "-"}, "behavior": ")" + behaviour +
                  "\"" + rest + "}")
                     .c_str(),
                 "the-final--countdown");
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
  EXPECT_EQ(encoded(bpe({{"unk_token", "<unk>"}, {"fuse_unk", true}}), "a\u00e9\u00e9b"),
            (Ids{0, 6, 1}));
}

std::vector<Span> spans(const Json& json, std::string_view word) {
  std::vector<Span> result;
  make_model(json).encode(word, [&](const Pieces& pieces, std::size_t begin) {
    for (const auto& span : pieces.spans) result.push_back({begin + span.begin, begin + span.end});
  });
  return result;
}

TEST(Bpe, PiecesKnowTheirBytes) {
  EXPECT_THAT(spans(bpe(), "abc"), ElementsAre(Span{0, 1}, Span{1, 3}));
  EXPECT_THAT(spans(bpe({{"unk_token", "<unk>"}, {"fuse_unk", true}}), "a\u00e9\u00e9b"),
              ElementsAre(Span{0, 1}, Span{1, 5}, Span{5, 6}));
}

TEST(Bpe, UnknownCharactersFallBackToTheirBytes) {
  auto json = bpe({{"byte_fallback", true}, {"unk_token", "<unk>"}});
  json["vocab"]["<0xC3>"] = 7;
  json["vocab"]["<0xA9>"] = 8;
  EXPECT_EQ(encoded(json, "a\u00e9b"), (Ids{0, 7, 8, 1}));
  EXPECT_EQ(encoded(json, "a\u00e8b"), (Ids{0, 6, 1}));  // one of its bytes has no token
  EXPECT_THAT(spans(json, "\u00e9"), ElementsAre(Span{0, 1}, Span{1, 2}));
}

TEST(Bpe, PrefixAndSuffixMarkPlacesInAWord) {
  EXPECT_EQ(encoded({{"type", "BPE"},
                     {"vocab", {{"a", 0}, {"b</w>", 1}, {"ab</w>", 2}}},
                     {"merges", {"a b</w>"}},
                     {"end_of_word_suffix", "</w>"}},
                    "ab"),
            (Ids{2}));
  EXPECT_EQ(encoded({{"type", "BPE"},
                     {"vocab", {{"a", 0}, {"##b", 1}, {"ab", 2}}},
                     {"merges", {"a ##b"}},
                     {"continuing_subword_prefix", "##"}},
                    "ab"),
            (Ids{2}));
}

TEST(Bpe, LongTextInOnePieceIsCutAtSpacesWithoutAnotherResult) {
  const Json json = Json::parse(
      R"({"type": "BPE", "vocab": {"\u2581": 0, "a": 1, "b": 2, "\u2581a": 3, "ab": 4, "\u2581\u2581": 5, "\u2581ab": 6},
                                    "merges": ["\u2581 \u2581", "a b", "\u2581 ab", "\u2581 a"]})");
  std::string text;
  Ids expected;
  for (int i = 0; i < 50; ++i) {
    text += "\u2581\u2581\u2581ab\u2581ab";
    expected.insert(expected.end(), {5, 6, 6});
  }
  EXPECT_EQ(encoded(json, text), expected);
  EXPECT_EQ(spans(json, text).back().end, text.size());
}

Json unigram(const Json& extra = Json::object()) {
  Json json = Json::parse(
      R"({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["a", -1], ["b", -2], ["ab", -2.5], ["c", -4], ["bc", -3]]})");
  json.update(extra);
  return json;
}

TEST(Unigram, TakesTheLikeliestPieces) {
  EXPECT_EQ(encoded(unigram(), "abc"), (Ids{1, 5}));  // -4 against -6.5 for "ab" "c"
  EXPECT_EQ(encoded(unigram(), "ab"), (Ids{3}));
  EXPECT_EQ(encoded(unigram(), ""), Ids{});
}

TEST(Unigram, UnknownNeighboursAreOnePieceOrTheirBytes) {
  EXPECT_EQ(encoded(unigram(), "a\u00e9\u00e8b"), (Ids{1, 0, 2}));
  EXPECT_THAT(spans(unigram(), "a\u00e9\u00e8b"), ElementsAre(Span{0, 1}, Span{1, 5}, Span{5, 6}));
  auto bytes = unigram({{"byte_fallback", true}});
  bytes["vocab"].push_back({"<0xC3>", -9});
  bytes["vocab"].push_back({"<0xA9>", -9});
  EXPECT_EQ(encoded(bytes, "\u00e9"), (Ids{6, 7}));
  EXPECT_THAT([] { encoded(unigram({{"unk_id", nullptr}}), "x"); },
              ThrowsMessage<Error>(HasSubstr("lacks 'x' and has no unknown token")));
  EXPECT_THAT([] { encoded(unigram({{"unk_id", 6}}), "x"); },
              ThrowsMessage<Error>(HasSubstr("unk_id is 6, but the Unigram vocab has 6 pieces")));
  EXPECT_THAT([] { encoded(unigram({{"vocab", {{"a", 1}}}}), "x"); },
              ThrowsMessage<Error>(HasSubstr("must be a list")));
}

TEST(WordLevel, WordIsATokenOrUnknown) {
  const Json json = {
      {"type", "WordLevel"}, {"vocab", {{"<unk>", 0}, {"a", 1}}}, {"unk_token", "<unk>"}};
  EXPECT_EQ(encoded(json, "a"), (Ids{1}));
  EXPECT_EQ(encoded(json, "b"), (Ids{0}));
}

TEST(Bpe, WhatItDoesNotDoIsRefused) {
  const auto refusal = [](const Json& extra, const char* text) {
    EXPECT_THAT([&] { make_model(bpe(extra)); }, ThrowsMessage<Error>(HasSubstr(text)));
  };
  refusal({{"dropout", 0.1}}, "dropout");
  refusal({{"merges", {"a z"}}}, "needs the token 'az'");
  refusal({{"merges", {"abc"}}}, "merge 0 must be two tokens");
  refusal({{"unk_token", "?"}}, "'?' is not in the BPE vocab");
  refusal({{"vocab", {{"a", -1}}}}, "whole number");
  refusal({{"vocab", {{"a", 4294967296}}}}, "whole number");
  refusal({{"vocab", Json::array()}}, "must be an object");
  EXPECT_THAT([] { make_model({{"type", "Huffman"}}); },
              ThrowsMessage<Error>(HasSubstr("the model 'Huffman' is not supported; supported are "
                                             "BPE, Unigram, WordLevel, WordPiece")));
}

TEST(WordPiece, TakesTheLongestPieceOrMarksTheWholeWord) {
  const Json json = {{"type", "WordPiece"},
                     {"vocab", {{"[UNK]", 0}, {"un", 1}, {"##aff", 2}, {"##able", 3}, {"##a", 4}}},
                     {"max_input_chars_per_word", 9}};
  EXPECT_EQ(encoded(json, "unaffable"), (Ids{1, 2, 3}));
  EXPECT_EQ(encoded(json, "unaz"), (Ids{0}));
  EXPECT_EQ(encoded(json, "unaffablea"), (Ids{0}));  // ten characters
  EXPECT_THAT([] { make_model({{"type", "WordPiece"}, {"vocab", {{"a", 0}}}}); },
              ThrowsMessage<Error>(HasSubstr("'[UNK]' is not in the WordPiece vocab")));
}

TEST(AddedTokens, TheLongestIsFoundAndFlagsAreKept) {
  const Json json = Json::parse(
      R"([{"id": 0, "content": "<a>"}, {"id": 1, "content": "<a>b"}, {"id": 2, "content": "<l>", "lstrip": true},
                                    {"id": 3, "content": "<r>", "rstrip": true}, {"id": 4, "content": "at", "single_word": true}])");
  Json raw = json;
  for (auto& token : raw) token["normalized"] = false;
  const AddedTokens added(raw, make_normalizer(nullptr));
  const auto cut = [&](std::string_view text) {
    std::vector<std::pair<std::string, int>> result;
    for (const auto& segment : added.cut_raw(text))
      result.emplace_back(text.substr(segment.span.begin, segment.span.end - segment.span.begin),
                          segment.id.value_or(-1));
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
  const AddedTokens added(
      Json::parse(
          R"([{"id": 0, "content": "<A>", "normalized": true}, {"id": 1, "content": "<B>", "normalized": false}])"),
      lower);
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
  EXPECT_EQ(processed(R"({"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]})"),
            (Ids{1, 7, 2}));
  EXPECT_EQ(
      processed(
          R"({"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}]})"),
      (Ids{1, 7}));
  EXPECT_THAT(
      [&] {
        processed(
            R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}], "special_tokens": {}})");
      },
      ThrowsMessage<Error>(HasSubstr("names '<s>'")));
  EXPECT_THAT(
      [&] { processed(R"({"type": "TemplateProcessing", "single": [], "special_tokens": {}})"); },
      ThrowsMessage<Error>(HasSubstr("does not contain the text")));
}

TEST(Decoders, EachGoesItsWayBack) {
  EXPECT_EQ(decoded("null", {"a", "b"}), "a b");
  EXPECT_EQ(decoded(R"({"type": "ByteLevel"})", {"\u0120a", "\u00c3", "\u00a9", "<a b>"}),
            " a\u00e9<a b>");
  EXPECT_EQ(decoded(R"({"type": "WordPiece", "prefix": "##", "cleanup": true})",
                    {"un", "##able", "to", "."}),
            "unable to.");
  EXPECT_EQ(decoded(R"({"type": "WordPiece", "prefix": "##", "cleanup": false})", {"to", "."}),
            "to .");
  EXPECT_EQ(decoded(R"({"type": "Sequence", "decoders": [{"type": "ByteLevel"}]})", {"\u0120a"}),
            " a");
}

TEST(Decoders, SentencePiecesGoTheirs) {
  const char* llama =
      R"({"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
                          {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})";
  EXPECT_EQ(decoded(llama, {"\u2581Hey", "\u2581", "<0xC3>", "<0xA9>", "!"}), "Hey \u00e9!");
  EXPECT_EQ(decoded(llama, {"a", "<0xE2>", "<0x82>", "b"}), "a\uFFFD\uFFFDb");
  EXPECT_EQ(decoded(R"({"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"})",
                    {"\u2581Hey", "\u2581you"}),
            "Hey you");
  EXPECT_EQ(decoded(R"({"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never"})",
                    {"\u2581Hey"}),
            " Hey");
  EXPECT_EQ(decoded(R"({"type": "BPEDecoder", "suffix": "</w>"})", {"a", "b</w>", "c</w>"}),
            "ab c");
  EXPECT_EQ(
      decoded(
          R"({"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": true})",
          {"h", "h", "<pad>", "i", "|"}),
      "hi ");
  EXPECT_EQ(decoded(R"({"type": "Strip", "content": "x", "start": 9, "stop": 9})", {"xx", "xax"}),
            "a");
}

TEST(PostProcessors, BlanksAtTheBordersOfATokenAreNoPartOfItsSpan) {
  const auto processor = make_post_processor(
      Json::parse(R"({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true})"));
  Draft draft{{{1, 2}, {{0, 3}, {3, 6}}}, {"\u0120ab", "\u0120\u0120c"}};
  processor.trim(draft, "ab   c");
  // the first space was put there, the others were in the text
  EXPECT_EQ(draft.encoding.spans, (std::vector<Span>{{0, 3}, {5, 6}}));
}

TEST(Parts, UnsupportedOnesAreNamedWithThoseThatAre) {
  EXPECT_THAT([] { make_normalizer({{"type", "Odd"}}); },
              ThrowsMessage<Error>(HasSubstr(
                  "the normalizer 'Odd' is not supported; supported are BertNormalizer")));
  EXPECT_THAT([] { make_pre_tokenizer({{"type", "Odd"}}); },
              ThrowsMessage<Error>(HasSubstr("the pre-tokenizer 'Odd' is not supported")));
  EXPECT_THAT([] { make_post_processor({{"type", "Odd"}}); },
              ThrowsMessage<Error>(HasSubstr("the post-processor 'Odd' is not supported")));
  EXPECT_THAT([] { make_decoder({{"type", "Odd"}}); },
              ThrowsMessage<Error>(
                  HasSubstr("the decoder 'Odd' is not supported; supported are BPEDecoder")));
}

}  // namespace
}  // namespace attune::text
