// The dataset plugins: what encode makes of a record, and collate of samples.
#include <attune/error.hpp>
#include <gmock/gmock.h>

#include <set>

#include "attune/batch.hpp"
#include "data_fixtures.hpp"
#include "registry/loader.hpp"

namespace attune {
namespace {
using testing::ElementsAre;
using testing::HasSubstr;

class DatasetPlugins : public testing::Test {
 protected:
  Registry registry_;
  Tokenizer tokenizer_{fixtures::tokenizer_json()};
  ChatTemplate chat_ = ChatTemplate::by_name("plain");
  DatasetPlugins() {
    const std::filesystem::path folder = std::filesystem::path(ATTUNE_BINARY_DIR) / "plugins";
    std::vector<std::filesystem::path> files;
    for (const char* name : {"instruction", "corpus", "classification", "token_classification",
                             "preference", "images"})
      files.push_back(folder / (std::string(name) + ".so"));
    load_plugins(registry_, files);
  }

  /// With options set by name.
  std::shared_ptr<Dataset> make(const std::string& name,
                                const std::map<std::string, OptionValue>& values = {}) {
    const auto& entry = registry_.find(Kind::dataset, name);
    const auto options = entry.defaults();
    for (const auto& option : entry.schema.options)
      if (const auto value = values.find(option.name); value != values.end())
        option.set(options.get(), value->second);
    return std::static_pointer_cast<Dataset>(entry.build(options.get(), nullptr));
  }
  EncodeContext context() { return {tokenizer_, &chat_, {"no", "yes"}}; }

  static std::vector<std::int64_t> values(const at::Tensor& tensor) {
    const auto wide = tensor.to(at::kLong).contiguous();
    return {wide.data_ptr<std::int64_t>(), wide.data_ptr<std::int64_t>() + wide.numel()};
  }
  std::string reason(const Dataset& dataset, const Record& record) {
    try {
      dataset.encode_all(record, context());
    } catch (const Rejected& rejected) {
      return rejected.what();
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }
  static Record text(const std::string& words) {
    return {{{"text", words}}, {}, {}, {}, "a.txt", 1};
  }
  const Record pair_{{{"prompt", "a b"}, {"response", "c d"}}, {}, {}, {}, "a.csv", 2};
};

TEST_F(DatasetPlugins, InstructionMasksAllButTheAnswer) {
  const auto sample = make("instruction")->encode(pair_, context());
  const auto expected = chat_.encode({{"user", "a b"}, {"assistant", "c d"}}, tokenizer_);
  EXPECT_TRUE(std::equal(expected.tokens.begin(), expected.tokens.end(),
                         sample.at("tokens").data_ptr<std::int32_t>()));
  EXPECT_EQ(sample.at("tokens").scalar_type(), at::kInt);
  EXPECT_EQ(sample.at("loss_mask").scalar_type(), at::kByte);
  const auto tokens = values(sample.at("tokens"));
  const auto mask = values(sample.at("loss_mask"));
  ASSERT_EQ(tokens.size(), mask.size());
  const auto first =
      static_cast<std::size_t>(std::find(mask.begin(), mask.end(), 1) - mask.begin());
  ASSERT_LT(first + 1, tokens.size());
  EXPECT_EQ(tokens[first], *tokenizer_.id("c"));
  EXPECT_EQ(tokens[first + 1], *tokenizer_.id("d"));
}

TEST_F(DatasetPlugins, InstructionReadsConversations) {
  const Record chat{{}, {{"user", "a b"}, {"assistant", "c d"}}, {}, {}, "a.jsonl", 1};
  const auto dataset = make("instruction");
  EXPECT_TRUE(dataset->encode(chat, context())
                  .at("tokens")
                  .equal(dataset->encode(pair_, context()).at("tokens")));
}

TEST_F(DatasetPlugins, InstructionRejectsWhatTrainsOnNothing) {
  EXPECT_EQ(
      reason(*make("instruction"), {{{"prompt", "a"}, {"response", " \n"}}, {}, {}, {}, "a", 1}),
      "empty answer");
  EXPECT_EQ(reason(*make("instruction"), {{}, {{"user", "a"}}, {}, {}, "a", 1}),
            "no answer to train on");
  EXPECT_EQ(reason(*make("instruction", {{"max_length", 3}}), pair_), "longer than 3 tokens");
  EXPECT_EQ(
      reason(*make("instruction", {{"max_length", 3}, {"too_long", std::string("cut")}}), pair_),
      "no answer to train on");
}

TEST_F(DatasetPlugins, InstructionWithoutATemplateNamesTheCure) {
  const EncodeContext bare{tokenizer_, nullptr, {}};
  try {
    make("instruction")->encode(pair_, bare);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("set template in the recipe to one of: alpaca, chatml"));
  }
}

TEST_F(DatasetPlugins, InstructionTargetsAreTheNextTokensOfTheAnswer) {
  const auto ints = [](std::vector<std::int32_t> v) { return at::tensor(v, at::kInt); };
  const auto bytes = [](std::vector<std::int32_t> v) { return at::tensor(v, at::kByte); };
  const std::vector<Sample> samples{
      {{"tokens", ints({5, 6, 7, 8})}, {"loss_mask", bytes({0, 0, 1, 1})}},
      {{"tokens", ints({9, 10})}, {"loss_mask", bytes({0, 1})}}};
  const Batch batch = make("instruction")->collate(samples);
  EXPECT_THAT(values(batch.tokens), ElementsAre(5, 6, 7, 8, 9, 10));
  EXPECT_THAT(values(batch.positions), ElementsAre(0, 1, 2, 3, 0, 1));
  EXPECT_THAT(values(batch.targets), ElementsAre(-100, 7, 8, -100, 10, -100));
  EXPECT_THAT(
      values(
          make("instruction", {{"train_on", std::string("everything")}})->collate(samples).targets),
      ElementsAre(6, 7, 8, -100, 10, -100));
  EXPECT_THAT(values(make("instruction", {{"max_length", 3}})->collate(samples).targets),
              ElementsAre(-100, 7, -100, 10, -100));
}

TEST_F(DatasetPlugins, InstructionTrainsOnEveryAnswerOfAConversation) {
  const Record chat{
      {}, {{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}}, {}, {}, "a.jsonl",
      1};
  const auto sample = make("instruction")->encode(chat, context());
  const auto trained = values(make("instruction")->collate({sample}).targets);
  const auto all = values(
      make("instruction", {{"train_on", std::string("everything")}})->collate({sample}).targets);
  EXPECT_THAT(trained, testing::Contains(*tokenizer_.id("b")));
  EXPECT_THAT(trained, testing::Contains(*tokenizer_.id("d")));
  EXPECT_THAT(trained, testing::Not(testing::Contains(*tokenizer_.id("c"))));
  EXPECT_EQ(std::count(all.begin(), all.end(), ignored_target), 1);
}

TEST_F(DatasetPlugins, InstructionRejectsAConversationWithAnEmptyAnswer) {
  EXPECT_EQ(reason(*make("instruction"), {{}, {{"user", "a"}, {"assistant", " "}}, {}, {}, "a", 1}),
            "empty answer");
}

TEST_F(DatasetPlugins, CorpusKeepsADocumentWhole) {
  const auto samples = make("corpus")->encode_all(text("a b c"), context());
  ASSERT_EQ(samples.size(), 1u);
  EXPECT_THAT(values(samples[0].at("tokens")), ElementsAre(1, 3, 4, 5, 2));
  EXPECT_THAT(values(samples[0].at("loss_mask")), ElementsAre(0, 1, 1, 1, 1));
  EXPECT_THAT(values(make("corpus")->collate(samples).targets), ElementsAre(3, 4, 5, 2, -100));
  EXPECT_EQ(reason(*make("corpus"), text(" ")), "empty text");
}

TEST_F(DatasetPlugins, CorpusWindowsHoldEveryTokenAndWithOverlapTrainOnEachOnce) {
  const auto whole =
      values(make("corpus")->encode(text("a b c d e f g h"), context()).at("tokens"));
  for (const std::int64_t window : {2, 3, 4, 7, 10, 11})
    for (std::int64_t overlap = 0; overlap < window; ++overlap) {
      const auto dataset = make("corpus", {{"window", window}, {"overlap", overlap}});
      const auto samples = dataset->encode_all(text("a b c d e f g h"), context());
      std::vector<std::int64_t> seen;
      std::vector<std::int64_t> trained;
      for (const auto& sample : samples) {
        const auto tokens = values(sample.at("tokens"));
        EXPECT_LE(std::ssize(tokens), window);
        seen.insert(seen.end(), tokens.begin() + (seen.empty() ? 0 : overlap), tokens.end());
        for (const auto target : values(dataset->collate({sample}).targets))
          if (target != ignored_target) trained.push_back(target);
      }
      // one token alone predicts nothing
      const bool last_left_out = overlap == 0 && std::ssize(whole) % window == 1;
      EXPECT_EQ(seen, std::vector(whole.begin(), whole.end() - last_left_out))
          << window << " " << overlap;
      if (overlap > 0) {
        EXPECT_EQ(trained, std::vector(whole.begin() + 1, whole.end())) << window << " " << overlap;
      }
    }
}

TEST_F(DatasetPlugins, CorpusRefusesWindowsThatCannotMoveOn) {
  EXPECT_THROW(make("corpus", {{"window", 4}, {"overlap", 4}}), Error);
  EXPECT_THROW(make("corpus", {{"window", 1}}), Error);
}

TEST_F(DatasetPlugins, PreferenceKeepsPromptAndBothAnswersApart) {
  const auto dataset = make("preference");
  const Record record{
      {{"prompt", "a b"}, {"chosen", "c d"}, {"rejected", "e"}}, {}, {}, {}, "a.jsonl", 1};
  const auto sample = dataset->encode(record, context());
  const auto expected = chat_.encode({{"user", "a b"}, {"assistant", "c d"}}, tokenizer_);
  auto joined = values(sample.at("prompt"));
  auto chosen = values(sample.at("chosen"));
  EXPECT_EQ(chosen.front(), *tokenizer_.id("c"));
  EXPECT_EQ(values(sample.at("rejected")).front(), *tokenizer_.id("e"));
  joined.insert(joined.end(), chosen.begin(), chosen.end());
  ASSERT_LE(joined.size(), expected.tokens.size());
  EXPECT_TRUE(std::equal(joined.begin(), joined.end(), expected.tokens.begin()));
  const Record conversation{
      {{"chosen", "c d"}, {"rejected", "e"}}, {{"user", "a b"}}, {}, {}, "a.jsonl", 1};
  EXPECT_TRUE(dataset->encode(conversation, context()).at("chosen").equal(sample.at("chosen")));
}

TEST_F(DatasetPlugins, PreferenceBatchesPairsOfSamplesWithAnswersAsTargets) {
  const auto ints = [](std::vector<std::int32_t> v) { return at::tensor(v, at::kInt); };
  const std::vector<Sample> pairs{
      {{"prompt", ints({3, 4})}, {"chosen", ints({5, 6})}, {"rejected", ints({7})}},
      {{"prompt", ints({8})}, {"chosen", ints({9})}, {"rejected", ints({10, 11})}}};
  const Batch batch = make("preference")->collate(pairs);
  EXPECT_EQ(batch.starts, (std::vector<std::int64_t>{0, 4, 7, 9, 12}));
  EXPECT_THAT(values(batch.tokens), ElementsAre(3, 4, 5, 6, 3, 4, 7, 8, 9, 8, 10, 11));
  EXPECT_THAT(values(batch.targets),
              ElementsAre(-100, 5, 6, -100, -100, 7, -100, 9, -100, 10, 11, -100));
  EXPECT_THAT(values(batch.columns.at("chosen")), ElementsAre(1, 0, 1, 0));
  EXPECT_THAT(values(batch.columns.at("pair")), ElementsAre(0, 0, 1, 1));
  EXPECT_EQ(make("preference", {{"max_length", 3}})->collate(pairs).starts,
            (std::vector<std::int64_t>{0, 3, 6, 8, 11}));
}

TEST_F(DatasetPlugins, PreferenceRejectsPairsThatTeachNothing) {
  const auto pair = [](const char* chosen, const char* rejected) {
    return Record{
        {{"prompt", "a"}, {"chosen", chosen}, {"rejected", rejected}}, {}, {}, {}, "a", 1};
  };
  EXPECT_EQ(reason(*make("preference"), pair("b", "b")), "chosen and rejected are the same");
  EXPECT_EQ(reason(*make("preference"), pair("b", " ")), "empty rejected answer");
  EXPECT_EQ(reason(*make("preference", {{"max_length", 3}}), pair("b c d e", "b")),
            "longer than 3 tokens");
}

TEST_F(DatasetPlugins, ClassificationKeepsTheFinalSpecialTokenWhenItCuts) {
  const Record record{{{"text", "a b c d"}, {"label", "yes"}}, {}, {}, {}, "a.csv", 2};
  const auto whole = make("classification")->encode(record, context());
  EXPECT_THAT(values(whole.at("tokens")), ElementsAre(1, 3, 4, 5, 6, 2));
  EXPECT_EQ(whole.at("label").dim(), 0);
  EXPECT_EQ(whole.at("label").item<std::int64_t>(), 1);
  EXPECT_THAT(
      values(make("classification", {{"max_length", 4}})->encode(record, context()).at("tokens")),
      ElementsAre(1, 3, 4, 2));
  EXPECT_EQ(reason(*make("classification", {{"max_length", 4}, {"too_long", std::string("drop")}}),
                   record),
            "longer than 4 tokens");
  EXPECT_EQ(
      reason(*make("classification"), {{{"text", " "}, {"label", "no"}}, {}, {}, {}, "a.csv", 3}),
      "empty text");
}

TEST_F(DatasetPlugins, ClassificationTargetsAreOneLabelASample) {
  const auto dataset = make("classification");
  const auto sample = [&](const char* text, const char* label) {
    return dataset->encode({{{"text", text}, {"label", label}}, {}, {}, {}, "a", 1}, context());
  };
  const Batch batch = dataset->collate({sample("a b", "yes"), sample("c", "no")});
  EXPECT_THAT(values(batch.targets), ElementsAre(1, 0));
  EXPECT_EQ(batch.starts, (std::vector<std::int64_t>{0, 4, 7}));
  EXPECT_THAT(
      values(make("classification", {{"max_length", 3}})->collate({sample("a b", "yes")}).tokens),
      ElementsAre(1, 3, 2));
}

TEST_F(DatasetPlugins, ClassificationTakesAnyOfSeveralLabels) {
  const auto dataset = make("classification", {{"target", std::string("labels")}});
  const auto record = [](const char* labels) {
    return Record{{{"text", "a"}, {"labels", labels}}, {}, {}, {}, "a.csv", 2};
  };
  EXPECT_THAT(dataset->labels(record("no, yes ,no")), ElementsAre("no", "yes", "no"));
  EXPECT_THAT(dataset->labels(record("[\"a, b\", \"c\"]")), ElementsAre("a, b", "c"));
  EXPECT_THAT(dataset->labels(record("")), ElementsAre());
  EXPECT_THAT(
      make("classification", {{"target", std::string("labels")}, {"separator", std::string("; ")}})
          ->labels(record("a, b; c")),
      ElementsAre("a, b", "c"));
  EXPECT_THAT(reason(*dataset, record("[null]")),
              HasSubstr("a.csv, row 2: labels begins like a JSON list"));

  const auto samples =
      std::vector{dataset->encode(record("yes"), context()), dataset->encode(record(""), context()),
                  dataset->encode(record("yes,no"), context())};
  EXPECT_EQ(samples[0].at("labels").sizes(), (std::vector<std::int64_t>{1, 2}));
  const Batch batch = make("classification")->collate(samples);
  EXPECT_TRUE(batch.targets.equal(at::tensor({0.f, 1.f, 0.f, 0.f, 1.f, 1.f}).reshape({3, 2})));
}

TEST_F(DatasetPlugins, ClassificationTakesValues) {
  const auto dataset = make("classification", {{"target", std::string("value")}});
  const auto record = [](const char* value) {
    return Record{{{"text", "a"}, {"value", value}}, {}, {}, {}, "a.csv", 2};
  };
  EXPECT_THAT(dataset->labels(record("1")), ElementsAre("value"));
  const Batch batch = make("classification")
                          ->collate({dataset->encode(record("-1.5"), context()),
                                     dataset->encode(record("2e1"), context())});
  EXPECT_TRUE(batch.targets.equal(at::tensor({-1.5f, 20.f})));
  EXPECT_THAT(reason(*dataset, record("1,5")),
              HasSubstr("a.csv, row 2: value is \"1,5\", which is not a number"));
}

TEST_F(DatasetPlugins, TokenClassificationTagsTheFirstTokenOfEachWord) {
  const auto record = [](const char* words, const char* tags) {
    return Record{{{"words", words}, {"tags", tags}}, {}, {}, {}, "a.jsonl", 1};
  };
  const auto dataset = make("token_classification");
  // The tokenizer knows single letters: "a!" becomes a and [UNK].
  const auto sample =
      dataset->encode(record(R"(["a!", "b", "c"])", R"(["yes", "no", "yes"])"), context());
  EXPECT_THAT(values(sample.at("tokens")), ElementsAre(1, 3, 0, 4, 5, 2));
  EXPECT_THAT(values(sample.at("tags")), ElementsAre(-100, 1, -100, 0, 1, -100));
  EXPECT_TRUE(dataset->encode(record("a b", "no  yes"), context())
                  .at("tags")
                  .equal(at::tensor({-100, 0, 1, -100}, at::kLong)));
  EXPECT_THAT(dataset->labels(record("a b c", "no yes no")), ElementsAre("no", "yes"));
  EXPECT_THAT(dataset->labels(record("a b", "[3, 0]")), ElementsAre("0", "3"));

  const auto cut = make("token_classification", {{"max_length", 4}});
  EXPECT_THAT(values(cut->encode(record("a b c d", "no yes no yes"), context()).at("tokens")),
              ElementsAre(1, 3, 4, 2));
  EXPECT_THAT(
      values(
          cut->collate({dataset->encode(record("a b c d", "no yes no yes"), context())}).targets),
      ElementsAre(-100, 0, 1, -100));
}

TEST_F(DatasetPlugins, TokenClassificationRefusesWhatHasNoTagForEachWord) {
  const auto dataset = make("token_classification");
  EXPECT_THAT(reason(*dataset, {{{"words", "a b"}, {"tags", "no"}}, {}, {}, {}, "a.csv", 7}),
              HasSubstr("a.csv, row 7: has 2 words and 1 tags"));
  EXPECT_EQ(reason(*dataset, {{{"words", " "}, {"tags", ""}}, {}, {}, {}, "a.csv", 7}), "no words");
  EXPECT_THAT(reason(*dataset, {{{"words", "[a"}, {"tags", "no"}}, {}, {}, {}, "a.csv", 7}),
              HasSubstr("begins like a JSON list"));
  EXPECT_EQ(
      reason(*make("token_classification", {{"max_length", 3}, {"too_long", std::string("drop")}}),
             {{{"words", "a b"}, {"tags", "no no"}}, {}, {}, {}, "a", 1}),
      "longer than 3 tokens");
}

TEST_F(DatasetPlugins, ClassificationOfOneLabelNamesItFromTheRecord) {
  EXPECT_THAT(make("classification")->labels({{{"text", "a"}, {"label", "x"}}, {}, {}, {}, "a", 1}),
              ElementsAre("x"));
}

Record picture(const at::Tensor& pixels) {
  return {{{"label", "yes"}}, {}, {}, pixels, "a.png", 3};
}
at::Tensor pattern(std::int64_t height, std::int64_t width, std::int64_t channels) {
  return at::arange(height * width * channels, at::kInt)
      .remainder(251)
      .to(at::kByte)
      .reshape({height, width, channels});
}

TEST_F(DatasetPlugins, ImagesKeepPixelsAndBatchThemByChannel) {
  const auto dataset = make("images");
  EXPECT_FALSE(dataset->reads_text());
  const auto image = pattern(4, 5, 3);
  const auto sample = dataset->encode(picture(image), context());
  EXPECT_TRUE(sample.at("pixels").equal(image));
  const Batch batch = dataset->collate({sample, sample});
  EXPECT_EQ(batch.columns.at("pixels").sizes(), (std::vector<std::int64_t>{2, 3, 4, 5}));
  EXPECT_EQ(batch.columns.at("pixels").scalar_type(), at::kByte);
  EXPECT_TRUE(batch.columns.at("pixels")[1].equal(image.permute({2, 0, 1})));
  EXPECT_THAT(values(batch.targets), ElementsAre(1, 1));
  EXPECT_EQ(batch.samples(), 2);
  EXPECT_THAT(reason(*dataset, picture({})), HasSubstr("a.png, row 3: contains no image"));
}

TEST_F(DatasetPlugins, ImagesAreScaledToOneSize) {
  const auto dataset = make("images", {{"size", 6}});
  EXPECT_EQ(dataset->encode(picture(pattern(12, 20, 3)), context()).at("pixels").sizes(),
            (std::vector<std::int64_t>{6, 6, 3}));
  EXPECT_EQ(dataset->encode(picture(pattern(5, 3, 1)), context()).at("pixels").sizes(),
            (std::vector<std::int64_t>{6, 6, 1}));
  const auto flat =
      dataset->encode(picture(at::full({12, 9, 1}, 77, at::kByte)), context()).at("pixels");
  EXPECT_TRUE(flat.eq(77).all().item<bool>());
}

TEST_F(DatasetPlugins, ImagesAreAugmentedByTheSeedAlone) {
  const std::map<std::string, OptionValue> options{{"flip", true}, {"crop", 2}, {"jitter", 0.3}};
  const auto dataset = make("images", options);
  const Sample sample{{"pixels", pattern(8, 8, 3)}, {"label", at::scalar_tensor(0, at::kLong)}};
  const auto pixels = [&](std::uint64_t seed) {
    return dataset->augment(sample, seed).at("pixels");
  };
  EXPECT_TRUE(sample.at("pixels").equal(pattern(8, 8, 3)));
  std::int64_t different = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    EXPECT_TRUE(pixels(seed).equal(make("images", options)->augment(sample, seed).at("pixels")));
    EXPECT_EQ(pixels(seed).sizes(), (std::vector<std::int64_t>{8, 8, 3}));
    EXPECT_EQ(pixels(seed).scalar_type(), at::kByte);
    different += !pixels(seed).equal(pixels(seed + 20));
  }
  EXPECT_EQ(different, 20);
  EXPECT_TRUE(make("images")->augment(sample, 1).at("pixels").equal(sample.at("pixels")))
      << "nothing unless asked for";
}

TEST_F(DatasetPlugins, ImagesFlipAboutHalfAndCropWithinThePadding) {
  const Sample sample{{"pixels", pattern(8, 8, 1)}, {"label", at::scalar_tensor(0, at::kLong)}};
  const auto flip = make("images", {{"flip", true}});
  const auto crop = make("images", {{"crop", 1}});
  std::int64_t flipped = 0;
  std::set<std::vector<std::int64_t>> corners;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const auto mirrored = flip->augment(sample, seed).at("pixels");
    flipped += mirrored.equal(sample.at("pixels").flip(1));
    EXPECT_TRUE(mirrored.equal(sample.at("pixels")) || mirrored.equal(sample.at("pixels").flip(1)));
    const auto shifted = crop->augment(sample, seed).at("pixels");
    corners.insert(values(shifted.narrow(0, 3, 1).narrow(1, 3, 1).flatten()));
  }
  EXPECT_GT(flipped, 150);
  EXPECT_LT(flipped, 250);
  EXPECT_EQ(corners.size(), 9u) << "three shifts in each direction";
}

/// A record that suits a kind, and others that differ from it.
Record record_of(const std::string& kind, int i) {
  const std::string words = std::string(1, static_cast<char>('a' + i)) + " x" +
                            std::string(static_cast<std::size_t>(i), ' ') + " y";
  Record record{{{"text", words},
                 {"prompt", words},
                 {"response", "b " + words},
                 {"chosen", "c " + words},
                 {"rejected", "d"},
                 {"label", i % 2 ? "yes" : "no"},
                 {"words", words},
                 {"tags", "no yes no"}},
                {},
                {},
                {},
                "a.jsonl",
                i + 1};
  if (kind == "images") record.image = pattern(4, 4, 3) + i;
  return record;
}

TEST_F(DatasetPlugins, EveryKindKeepsTheContract) {
  const auto kinds = registry_.names(Kind::dataset);
  EXPECT_EQ(kinds.size(), 6u);
  for (const auto& kind : kinds) {
    SCOPED_TRACE(kind);
    const auto dataset = make(kind);
    std::vector<Sample> samples;
    for (int i = 0; i < 3; ++i) {
      const auto record = record_of(kind, i);
      const auto sample = dataset->encode(record, context());
      const auto again = dataset->encode(record, context());
      for (const auto& [name, column] : sample) {
        EXPECT_TRUE(column.equal(again.at(name))) << name;
        EXPECT_THAT(column.scalar_type(),
                    testing::AnyOf(at::kByte, at::kInt, at::kLong, at::kFloat))
            << name;
        if (i > 0) {
          ASSERT_TRUE(samples[0].contains(name)) << name;
          EXPECT_EQ(column.dim(), samples[0].at(name).dim()) << name;
          EXPECT_EQ(column.scalar_type(), samples[0].at(name).scalar_type()) << name;
        }
      }
      EXPECT_EQ(dataset->encode_all(record, context()).size(), 1u)
          << "defaults make one sample of a record";
      EXPECT_TRUE(dataset->augment(sample, 7).begin()->second.equal(sample.begin()->second))
          << "defaults change nothing";
      samples.push_back(sample);
    }
    const Batch all = dataset->collate(samples);
    EXPECT_EQ(all.samples() % 3, 0);
    const auto rows = all.targets.size(0);
    EXPECT_TRUE(rows == all.length() || rows == all.samples()) << rows;
    EXPECT_TRUE(all.targets.is_floating_point() ||
                all.targets.ne(ignored_target).any().item<bool>());
    std::vector<at::Tensor> targets;
    std::map<std::string, std::vector<at::Tensor>> columns;
    for (const auto& sample : samples) {
      const Batch one = dataset->collate({sample});
      EXPECT_EQ(one.samples() * 3, all.samples());
      targets.push_back(one.targets);
      for (const auto& [name, column] : one.columns) columns[name].push_back(column);
    }
    EXPECT_TRUE(all.targets.equal(at::cat(targets)))
        << "a sample's targets do not depend on its neighbours";
    EXPECT_EQ(columns.size(), all.columns.size());
    for (const auto& [name, column] : all.columns) {
      if (name == "pair") continue;  // counts within the batch
      EXPECT_TRUE(column.equal(at::cat(columns.at(name)))) << name;
    }
  }
}

}  // namespace
}  // namespace attune
