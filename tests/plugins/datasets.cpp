// The dataset plugins: what encode makes of a record, and collate of samples.
#include <attune/error.hpp>
#include <gmock/gmock.h>

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
    load_plugins(registry_, {folder / "instruction.so", folder / "classification.so"});
  }

  /// With options set by name.
  std::shared_ptr<Dataset> make(const std::string& name, const std::map<std::string, OptionValue>& values = {}) {
    const auto& entry = registry_.find(Kind::dataset, name);
    const auto options = entry.defaults();
    for (const auto& option : entry.schema.options)
      if (const auto value = values.find(option.name); value != values.end()) option.set(options.get(), value->second);
    return std::static_pointer_cast<Dataset>(entry.build(options.get(), nullptr));
  }
  EncodeContext context() { return {tokenizer_, &chat_, {"no", "yes"}}; }

  static std::vector<std::int64_t> values(const at::Tensor& tensor) {
    const auto wide = tensor.to(at::kLong).contiguous();
    return {wide.data_ptr<std::int64_t>(), wide.data_ptr<std::int64_t>() + wide.numel()};
  }
  std::string reason(const Dataset& dataset, const Record& record) {
    try {
      dataset.encode(record, context());
    } catch (const Rejected& rejected) {
      return rejected.what();
    }
    return "accepted";
  }
  const Record pair_{{{"prompt", "a b"}, {"response", "c d"}}, {}, "a.csv", 2};
};

TEST_F(DatasetPlugins, InstructionMasksAllButTheAnswer) {
  const auto sample = make("instruction")->encode(pair_, context());
  const auto expected = chat_.encode({{"user", "a b"}, {"assistant", "c d"}}, tokenizer_);
  EXPECT_TRUE(std::equal(expected.tokens.begin(), expected.tokens.end(), sample.at("tokens").data_ptr<std::int32_t>()));
  EXPECT_EQ(sample.at("tokens").scalar_type(), at::kInt);
  EXPECT_EQ(sample.at("loss_mask").scalar_type(), at::kByte);
  const auto tokens = values(sample.at("tokens")), mask = values(sample.at("loss_mask"));
  ASSERT_EQ(tokens.size(), mask.size());
  const auto first = static_cast<std::size_t>(std::find(mask.begin(), mask.end(), 1) - mask.begin());
  ASSERT_LT(first + 1, tokens.size());
  EXPECT_EQ(tokens[first], *tokenizer_.id("c"));
  EXPECT_EQ(tokens[first + 1], *tokenizer_.id("d"));
}

TEST_F(DatasetPlugins, InstructionReadsConversations) {
  const Record chat{{}, {{"user", "a b"}, {"assistant", "c d"}}, "a.jsonl", 1};
  const auto dataset = make("instruction");
  EXPECT_TRUE(dataset->encode(chat, context()).at("tokens").equal(dataset->encode(pair_, context()).at("tokens")));
}

TEST_F(DatasetPlugins, InstructionRejectsWhatTrainsOnNothing) {
  EXPECT_EQ(reason(*make("instruction"), {{{"prompt", "a"}, {"response", " \n"}}, {}, "a", 1}), "empty answer");
  EXPECT_EQ(reason(*make("instruction"), {{}, {{"user", "a"}}, "a", 1}), "no answer to train on");
  EXPECT_EQ(reason(*make("instruction", {{"max_length", 3}}), pair_), "longer than 3 tokens");
  EXPECT_EQ(reason(*make("instruction", {{"max_length", 3}, {"too_long", std::string("cut")}}), pair_), "no answer to train on");
}

TEST_F(DatasetPlugins, InstructionWithoutATemplateNamesTheCure) {
  const EncodeContext bare{tokenizer_, nullptr, {}};
  try {
    make("instruction")->encode(pair_, bare);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("set template in the recipe to one of: chatml, plain"));
  }
}

TEST_F(DatasetPlugins, InstructionTargetsAreTheNextTokensOfTheAnswer) {
  const auto ints = [](std::vector<std::int32_t> v) { return at::tensor(v, at::kInt); };
  const auto bytes = [](std::vector<std::int32_t> v) { return at::tensor(v, at::kByte); };
  const std::vector<Sample> samples{{{"tokens", ints({5, 6, 7, 8})}, {"loss_mask", bytes({0, 0, 1, 1})}},
                                    {{"tokens", ints({9, 10})}, {"loss_mask", bytes({0, 1})}}};
  const Batch batch = make("instruction")->collate(samples);
  EXPECT_THAT(values(batch.tokens), ElementsAre(5, 6, 7, 8, 9, 10));
  EXPECT_THAT(values(batch.positions), ElementsAre(0, 1, 2, 3, 0, 1));
  EXPECT_THAT(values(batch.targets), ElementsAre(-100, 7, 8, -100, 10, -100));
  EXPECT_THAT(values(make("instruction", {{"train_on", std::string("everything")}})->collate(samples).targets), ElementsAre(6, 7, 8, -100, 10, -100));
  EXPECT_THAT(values(make("instruction", {{"max_length", 3}})->collate(samples).targets), ElementsAre(-100, 7, -100, 10, -100));
}

TEST_F(DatasetPlugins, ClassificationKeepsTheFinalSpecialTokenWhenItCuts) {
  const Record record{{{"text", "a b c d"}, {"label", "yes"}}, {}, "a.csv", 2};
  const auto whole = make("classification")->encode(record, context());
  EXPECT_THAT(values(whole.at("tokens")), ElementsAre(1, 3, 4, 5, 6, 2));
  EXPECT_EQ(whole.at("label").dim(), 0);
  EXPECT_EQ(whole.at("label").item<std::int64_t>(), 1);
  EXPECT_THAT(values(make("classification", {{"max_length", 4}})->encode(record, context()).at("tokens")), ElementsAre(1, 3, 4, 2));
  EXPECT_EQ(reason(*make("classification", {{"max_length", 4}, {"too_long", std::string("drop")}}), record), "longer than 4 tokens");
  EXPECT_EQ(reason(*make("classification"), {{{"text", " "}, {"label", "no"}}, {}, "a.csv", 3}), "empty text");
}

TEST_F(DatasetPlugins, ClassificationTargetsAreOneLabelASample) {
  const auto dataset = make("classification");
  const auto sample = [&](const char* text, const char* label) { return dataset->encode({{{"text", text}, {"label", label}}, {}, "a", 1}, context()); };
  const Batch batch = dataset->collate({sample("a b", "yes"), sample("c", "no")});
  EXPECT_THAT(values(batch.targets), ElementsAre(1, 0));
  EXPECT_EQ(batch.starts, (std::vector<std::int64_t>{0, 4, 7}));
  EXPECT_THAT(values(make("classification", {{"max_length", 3}})->collate({sample("a b", "yes")}).tokens), ElementsAre(1, 3, 2));
}

}  // namespace
}  // namespace attune
