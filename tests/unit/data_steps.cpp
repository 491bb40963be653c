// The steps between a source and its samples, each by itself and in whole recipes.
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <attune/error.hpp>
#include <gmock/gmock.h>
#include <unistd.h>

#include <fstream>
#include <set>

#include "data_fixtures.hpp"
#include "prepare/augment.hpp"
#include "prepare/clean.hpp"
#include "prepare/privacy.hpp"
#include "prepare/truncate.hpp"
#include "prepare/twins.hpp"

namespace attune {
namespace {
namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

Record text_record(std::string text) {
  Record record;
  record.fields = {{"text", std::move(text)}, {"label", "x@y.org"}};
  record.source = "a.csv";
  record.row = 2;
  return record;
}

// --- Cleaning

TEST(Clean, TextsAreBroughtToTheNormalFormAndCounted) {
  CleanOptions options;
  Ledger ledger;
  auto record = text_record("e\u0301 \ufb01");
  options.normalize = "nfc";
  EXPECT_TRUE(clean(options, record, ledger));
  EXPECT_EQ(record.field("text"), "\u00e9 \ufb01");
  options.normalize = "nfkc";
  EXPECT_TRUE(clean(options, record, ledger));
  EXPECT_EQ(record.field("text"), "\u00e9 fi");
  EXPECT_TRUE(clean(options, record, ledger)) << "changes nothing more";
  EXPECT_EQ(ledger.changed().at("converted to the normal form nfkc").count, 1);
}

TEST(Clean, ControlCharactersGoAndLineEndsAreOne) {
  CleanOptions options;
  options.control_characters = true;
  Ledger ledger;
  auto record = text_record(
      "\ufeff"
      "a\x01"
      "b\tc\r\nd\re\u0085"
      "f\u200d");
  EXPECT_TRUE(clean(options, record, ledger));
  EXPECT_EQ(record.field("text"), "ab\tc\nd\nef\u200d")
      << "joiners are parts of emoji and of words";
}

TEST(Clean, LengthsAreOfCharactersNotBytes) {
  CleanOptions options;
  options.min_length = 3;
  options.max_length = 4;
  Ledger ledger;
  for (const auto* text : {"äö", "äöü", "äöüß", "äöüßa"}) {
    auto record = text_record(text);
    clean(options, record, ledger);
  }
  EXPECT_EQ(ledger.dropped().at("shorter than 3 characters").count, 1);
  EXPECT_EQ(ledger.dropped().at("longer than 4 characters").count, 1);
}

// --- Personal data

std::string masked(const std::string& text) {
  Ledger ledger;
  auto record = text_record(text);
  mask_personal_data(mask_kinds(), record, ledger);
  EXPECT_EQ(record.field("label"), "x@y.org") << "labels are no texts";
  return record.field("text");
}

TEST(Privacy, WhatLooksPersonalIsReplacedByItsKind) {
  EXPECT_EQ(masked("write to Ann.O'Neil+x@mail.example.co.uk, please"),
            "write to Ann.O'[EMAIL], please");
  EXPECT_EQ(masked("pay with 4111 1111 1111 1111 or 5500-0000-0000-0004."),
            "pay with [CARD] or [CARD].");
  EXPECT_EQ(masked("from 192.168.0.1:80, 10.0.0.255 and 2001:db8::ff00:42:8329"),
            "from [IP]:80, [IP] and [IP]");
  EXPECT_EQ(masked("call +49 30 1234567, (030) 123 4567, 555-123-4567 or 0171 2345678!"),
            "call [PHONE], [PHONE], [PHONE] or [PHONE]!");
}

TEST(Privacy, WhatOnlyLooksAlikeStays) {
  for (const std::string text :
       {"on 2024-01-15 at 12:30:45", "4111 1111 1111 1112 fails the check",
        "version 1.2.3 of std::vector, a::b", "pages 100-200", "3.14159265", "300.1.1.1",
        "@name and name@host", "1234567 people", "ISBN 978-3-16-148410-0"})
    EXPECT_EQ(masked(text), text);
}

TEST(Privacy, MasksAreCountedByKindAndOnlyThoseAskedForAreMade) {
  Ledger ledger;
  auto record = text_record("a@b.org, c@d.org and 10.0.0.1");
  mask_personal_data({"email"}, record, ledger);
  EXPECT_EQ(record.field("text"), "[EMAIL], [EMAIL] and 10.0.0.1");
  EXPECT_EQ(ledger.changed().at("[EMAIL] put in its place").count, 2);
  EXPECT_EQ(ledger.changed().size(), 1u);
}

TEST(Privacy, TextsInToolCallsAreMaskedAndKeysAreNot) {
  Record record;
  record.messages = {{"user", "I am a@b.org"}, {"assistant", ""}};
  record.messages[1].extra =
      R"({"tool_calls":[{"function":{"name":"send","arguments":"{\"x@y.org\": [\"a@b.org\", 1.50]}"}},{"function":{"name":"note","arguments":{"to":"a@b.org"}}}],"content":null})";
  Ledger ledger;
  mask_personal_data({"email"}, record, ledger);
  EXPECT_EQ(record.messages[0].content, "I am [EMAIL]");
  EXPECT_EQ(
      record.messages[1].extra,
      R"({"tool_calls":[{"function":{"name":"send","arguments":"{\"x@y.org\":[\"[EMAIL]\",1.5]}"}},{"function":{"name":"note","arguments":{"to":"[EMAIL]"}}}],"content":null})");
  EXPECT_EQ(ledger.changed().at("[EMAIL] put in its place").count, 3);
  const auto before = record.messages[1].extra;
  mask_personal_data({"email"}, record, ledger);
  EXPECT_EQ(record.messages[1].extra, before) << "what has nothing to mask stays as it is";
}

// --- Twins

/// Words 0 .. count - 1, but for those at every `step`-th place.
std::string words(int count, int step = 0, const std::string& other = "other") {
  std::string text;
  for (int i = 0; i < count; ++i)
    text += (step > 0 && i % step == step - 1 ? other + std::to_string(i)
                                              : "word" + std::to_string(i)) +
            " ";
  return text;
}

TEST(Twins, BandingFindsNearlyAllPairsOfTheSimilarityAskedFor) {
  for (const double similarity : {0.5, 0.8, 0.95}) {
    const auto [bands, rows] = Banding::for_similarity(similarity);
    EXPECT_LE(bands * rows, 128);
    EXPECT_GE(1 - std::pow(1 - std::pow(similarity, rows), bands), 0.99);
  }
}

TEST(Twins, TextsThatShareMostRunsShareABandAndOthersDoNot) {
  const auto banding = Banding::for_similarity(0.8);
  const auto shared = [&](const std::string& a, const std::string& b) {
    const auto x = bands_of(text_record(a), banding);
    const auto y = bands_of(text_record(b), banding);
    int count = 0;
    for (std::size_t i = 0; i < x.size(); ++i) count += x[i] == y[i];
    return count;
  };
  EXPECT_GT(shared(words(300), words(300, 100)), 0);
  EXPECT_EQ(shared(words(300), words(300, 2)), 0);
  EXPECT_EQ(shared(words(300), "THE " + words(300).substr(0, 20)), 0);
}

// --- Truncation

Sample sample_of(std::vector<int> tokens, std::vector<int> mask = {}) {
  if (mask.empty()) mask.assign(tokens.size(), 1);
  return {{"tokens", at::tensor(tokens, at::kInt)},
          {"loss_mask", at::tensor(mask, at::kByte)},
          {"label", at::tensor(3, at::kLong)}};
}

std::vector<std::vector<int>> cut(const std::string& policy, std::int64_t limit,
                                  std::int64_t overlap = 0) {
  TruncateOptions options;
  options.policy = policy;
  options.max_length = limit;
  options.overlap = overlap;
  std::vector<std::vector<int>> results;
  for (const auto& sample : truncated(options, sample_of({1, 10, 11, 12, 13, 14, 15, 2}), {1, 2})) {
    EXPECT_EQ(sample.at("loss_mask").size(0), sample.at("tokens").size(0));
    EXPECT_EQ(sample.at("label").item<int>(), 3);
    const auto* first = sample.at("tokens").data_ptr<std::int32_t>();
    results.emplace_back(first, first + sample.at("tokens").size(0));
  }
  return results;
}

TEST(Truncate, EachPolicyKeepsItsPartAndTheSpecialTokens) {
  EXPECT_THAT(cut("right", 5), ElementsAre(ElementsAre(1, 10, 11, 12, 2)));
  EXPECT_THAT(cut("left", 5), ElementsAre(ElementsAre(1, 13, 14, 15, 2)));
  EXPECT_THAT(cut("middle", 5), ElementsAre(ElementsAre(1, 10, 11, 15, 2)));
  EXPECT_THAT(cut("window", 5),
              ElementsAre(ElementsAre(1, 10, 11, 12, 2), ElementsAre(1, 13, 14, 15, 2)));
  EXPECT_THAT(cut("window", 6, 2),
              ElementsAre(ElementsAre(1, 10, 11, 12, 13, 2), ElementsAre(1, 12, 13, 14, 15, 2)));
  EXPECT_THAT(cut("right", 8), ElementsAre(ElementsAre(1, 10, 11, 12, 13, 14, 15, 2)))
      << "long enough as it is";
  EXPECT_THROW(cut("drop", 5), Rejected);
}

TEST(Truncate, ASampleThatWouldTrainOnNothingIsRejected) {
  TruncateOptions options;
  options.max_length = 2;
  EXPECT_THROW(truncated(options, sample_of({5, 6, 7, 8}, {0, 0, 1, 1}), {}), Rejected);
  options.policy = "window";
  EXPECT_EQ(truncated(options, sample_of({5, 6, 7, 8}, {0, 0, 1, 1}), {}).size(), 1u)
      << "the window with the answer stays";
}

// --- Augmentation

TEST(Augment, WordsAreSwappedAndLeftOutTheSameWayForTheSameSeed) {
  AugmentOptions options;
  options.swap = 0.3;
  options.drop = 0.2;
  auto record = text_record(words(50));
  auto same = record;
  auto other = record;
  augment(options, 1, record);
  augment(options, 1, same);
  augment(options, 2, other);
  EXPECT_EQ(record.field("text"), same.field("text"));
  EXPECT_NE(record.field("text"), other.field("text"));
  EXPECT_NE(record.field("text"), words(50));
  EXPECT_LT(record.field("text").size(), words(50).size());
  EXPECT_EQ(record.field("label"), "x@y.org");
}

TEST(Augment, SwapsAloneKeepAllWordsAndOneWordAlwaysStays) {
  AugmentOptions options;
  options.swap = 0.5;
  options.drop = 0;
  auto record = text_record("a b c d e f");
  augment(options, 3, record);
  std::multiset<char> letters(record.field("text").begin(), record.field("text").end());
  EXPECT_EQ(letters, std::multiset<char>({'a', 'b', 'c', 'd', 'e', 'f', ' ', ' ', ' ', ' ', ' '}));
  options.drop = 0.9;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    auto bare = text_record("one two");
    augment(options, seed, bare);
    EXPECT_FALSE(bare.field("text").empty());
  }
}

// --- Whole recipes

class Steps : public testing::Test {
 protected:
  fs::path folder_ = fs::path(testing::TempDir()) / ("attune-steps-" + std::to_string(::getpid()));
  Steps() {
    fs::create_directories(folder_);
    write_text(folder_ / "tokenizer.json", fixtures::tokenizer_json().dump());
  }
  ~Steps() override { fs::remove_all(folder_); }

  /// train.csv and test.csv, each in its split.
  PrepareReport prepare(const std::string& train, const std::string& test, const std::string& more,
                        const std::string& head = "", const std::string& of_train = "") {
    write_text(folder_ / "train.csv", "text,label\n" + train);
    write_text(folder_ / "test.csv", "text,label\n" + test);
    write_text(folder_ / "recipe.toml",
               "name = \"s\"\nkind = \"letters\"\nlicence = \"x\"\noutput = \"data.h5\"\ntokenizer "
               "= \"tokenizer.json\"\n" +
                   head + "[[source]]\npath = \"train.csv\"\nsplit = \"train\"\n" + of_train +
                   "[[source]]\npath = \"test.csv\"\nsplit = \"test\"\n" + more);
    return fixtures::prepare_folder(folder_);
  }
  std::string refusal(const std::string& train, const std::string& test, const std::string& more) {
    try {
      prepare(train, test, more);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }
  std::vector<std::int64_t> label_counts(const std::string& split) {
    const auto file = DataFile::open(folder_ / "data.h5");
    std::vector<std::int64_t> counts(file.labels().size());
    for (std::int64_t row = 0; row < file.split(split).size(); ++row)
      ++counts[static_cast<std::size_t>(
          file.split(split).read(std::vector{row})[0].at("label").item<std::int64_t>())];
    return counts;
  }
};

std::string near(int step) { return words(60, step) + ",0\n"; }

TEST_F(Steps, NearDuplicatesAreDroppedButTheFirst) {
  const auto report = prepare(words(60) + ",0\na b,0\n" + words(60, 50) + ",0\n" + words(60, 55) +
                                  ",0\n" + words(60, 2) + ",0\n",
                              "c d,0\n", "[clean]\ndeduplicate = \"near\"\n");
  EXPECT_EQ(report.rejected.at("nearly a duplicate").count, 2);
  EXPECT_THAT(report.rejected.at("nearly a duplicate").examples,
              ElementsAre("train.csv, row 4", "train.csv, row 5"));
  EXPECT_EQ(report.samples.at("train"), 3);
}

TEST_F(Steps, NothingOfValidationOrTestIsLeftInTraining) {
  const auto train = "a b c,0\nd e f,0\n" + near(50);
  const auto test = "a b c,0\nx y z,0\n" + words(60) + ",0\n";
  auto report = prepare(train, test, "[clean]\ndeduplicate = \"none\"\n");
  EXPECT_TRUE(report.rejected.empty());
  report = prepare(train, test, "[clean]\ndeduplicate = \"none\"\n[split]\nleakage = \"exact\"\n");
  EXPECT_THAT(report.rejected.at("equal to a record of validation or test").examples,
              ElementsAre("train.csv, row 2"));
  report = prepare(train, test, "[clean]\ndeduplicate = \"none\"\n[split]\nleakage = \"near\"\n");
  EXPECT_THAT(report.rejected.at("nearly equal to a record of validation or test").examples,
              ElementsAre("train.csv, row 4"));
  EXPECT_EQ(report.samples.at("test"), 3);
  report = prepare(train, test, "[split]\nleakage = \"exact\"\n");
  EXPECT_THAT(report.rejected.at("duplicate").examples, ElementsAre("train.csv, row 2"))
      << "what is held out stays, though it comes later";
}

TEST_F(Steps, BalancingBringsAllLabelsToTheSameNumberOrNotesTheirWeights) {
  std::string train;
  for (int i = 0; i < 12; ++i)
    train += fixtures::letters(i) + "," + (i < 2 ? "0" : i < 5 ? "1" : "2") + "\n";
  const std::string test = "x x x,0\n";
  prepare(train, test, "[balance]\nmethod = \"down\"\n");
  EXPECT_THAT(label_counts("train"), ElementsAre(2, 2, 2));
  const auto report = prepare(train, test, "[balance]\nmethod = \"up\"\n");
  EXPECT_THAT(label_counts("train"), ElementsAre(7, 7, 7));
  EXPECT_EQ(report.samples.at("test"), 1);
  prepare(train, test, "[balance]\nmethod = \"weights\"\n");
  EXPECT_THAT(label_counts("train"), ElementsAre(2, 3, 7));
  const auto root = hdf5::open_file(folder_ / "data.h5");
  EXPECT_TRUE(root.attributes().has("class_weights"));
}

TEST_F(Steps, TheWeightOfASourceIsTheShareOfItsRecordsThatIsTaken) {
  std::string train;
  for (int i = 0; i < 10; ++i) train += fixtures::letters(i) + ",0\n";
  auto report = prepare(train, "x x x,0\n", "", "", "weight = 0.35\n");
  EXPECT_EQ(report.samples.at("train"), 3);
  EXPECT_EQ(report.rejected.at("dropped by the weight 0.35 of train.csv").count, 7);
  const auto first = DataFile::open(folder_ / "data.h5").split("train").sha256();
  prepare(train, "x x x,0\n", "", "", "weight = 0.35\n");
  EXPECT_EQ(DataFile::open(folder_ / "data.h5").split("train").sha256(), first);
  prepare(train, "x x x,0\n", "[split]\nseed = 9\n", "", "weight = 0.35\n");
  EXPECT_NE(DataFile::open(folder_ / "data.h5").split("train").sha256(), first);
  report = prepare(train, "x x x,0\n", "", "", "weight = 2.5\n");
  EXPECT_EQ(report.samples.at("train"), 25);
  EXPECT_FALSE(report.rejected.contains("dropped by the weight 2.5 of train.csv"));
}

TEST_F(Steps, ALabelThatTrainingNeverSeesIsRefusedOrSkipped) {
  const std::string train = "a b,yes\nb c,no\n";
  const std::string test = "c d,yes\nd e,maybe\n";
  EXPECT_THAT(refusal(train, test, ""),
              HasSubstr("test.csv, row 3: no training record has the label 'maybe'"));
  const auto report = prepare(train, test, "", "on_error = \"skip\"\n");
  EXPECT_EQ(report.rejected.at("a label never seen in training").count, 1);
  EXPECT_EQ(report.samples.at("test"), 1);
}

TEST_F(Steps, ALabelThatTheRecipeDoesNotNameIsRefusedWithTheNearest) {
  EXPECT_THAT(refusal("a b,yes\nb c,on\n", "c d,yes\n", "[clean]\nlabels = [\"yes\", \"no\"]\n"),
              HasSubstr("train.csv, row 3: the label 'on' is not listed in [clean] (yes, no)"));
  prepare("a b,yes\nb c,no\n", "c d,yes\n", "[clean]\nlabels = [\"yes\", \"no\"]\n");
  EXPECT_THAT(DataFile::open(folder_ / "data.h5").labels(), ElementsAre("yes", "no"))
      << "in the order of the recipe";
}

TEST_F(Steps, CopiesAreMadeOfTrainingAlone) {
  const auto report = prepare("a b c d e f g,0\nh i j k l m n,0\n", "a a a,0\n",
                              "[augment]\ncopies = 3\nswap = 0.5\n");
  EXPECT_EQ(report.samples, (std::map<std::string, std::int64_t>{{"train", 8}, {"test", 1}}));
}

TEST_F(Steps, FieldsMissingWhenEncodingAreBadRowsToo) {
  write_text(folder_ / "held.jsonl", "{\"text\": \"a\", \"label\": \"0\"}\n{\"label\": \"0\"}\n");
  const std::string more = "[[source]]\npath = \"held.jsonl\"\nsplit = \"validation\"\n";
  EXPECT_THAT(refusal("a b,0\n", "b,0\n", more),
              HasSubstr("held.jsonl, row 2: there is no field 'text'"));
  const auto report = prepare("a b,0\n", "b c,0\n", more + "on_error = \"skip\"\n");
  EXPECT_EQ(report.rejected.at("a field is missing").count, 1);
}

TEST_F(Steps, EveryDroppedRecordIsListedWhenTheRecipeSaysSo) {
  prepare("a b,0\na b,0\nonly\nbad one,0\nsome text,0\n", "c d,0\n", "[clean]\nmax_length = 8\n",
          "list_rejected = true\non_error = \"skip\"\n");
  std::ifstream list(folder_ / "data.h5.rejected.jsonl");
  std::vector<std::string> reasons;
  for (std::string line; std::getline(list, line);) {
    const auto entry = nlohmann::json::parse(line);
    reasons.push_back(entry.at("reason").get<std::string>() + " " +
                      std::to_string(entry.at("row").get<int>()));
  }
  EXPECT_THAT(reasons, ElementsAre("fields that do not match the header 4",
                                   "longer than 8 characters 6", "duplicate 3", "bad text 5"));
}

TEST_F(Steps, AFailureLeavesWhatWasThereBefore) {
  prepare("a b,0\n", "c d,0\n", "");
  const auto before = read_text(folder_ / "data.h5");
  EXPECT_NE(refusal("a b,0\nonly\n", "c d,0\n", ""), "accepted");
  EXPECT_EQ(read_text(folder_ / "data.h5"), before);
  EXPECT_FALSE(fs::exists(folder_ / "data.h5.partial"));
}

}  // namespace
}  // namespace attune
