// Recipes and what they make, on one rank.
#include <attune/error.hpp>
#include <gmock/gmock.h>
#include <unistd.h>

#include <set>

#include "core/hash.hpp"
#include "data/card.hpp"
#include "data_fixtures.hpp"

namespace attune {
namespace {
namespace fs = std::filesystem;
using fixtures::prepare_folder;
using fixtures::write_recipe;
using testing::AllOf;
using testing::HasSubstr;

class Prepare : public testing::Test {
 protected:
  fs::path folder_ =
      fs::path(testing::TempDir()) / ("attune-prepare-" + std::to_string(::getpid()));
  Prepare() { fs::create_directories(folder_); }
  ~Prepare() override { fs::remove_all(folder_); }

  std::string refusal() {
    try {
      prepare_folder(folder_);
    } catch (const Error& error) {
      EXPECT_FALSE(fs::exists(folder_ / "data.h5") || fs::exists(folder_ / "data.h5.partial"))
          << "something was left behind";
      return error.what();
    }
    return "accepted";
  }
  void add_rows(const std::string& rows) {
    write_text(folder_ / "data.csv", read_text(folder_ / "data.csv") + rows);
  }
};

TEST_F(Prepare, MakesAFileThatSaysWhatItIs) {
  write_recipe(folder_, 60);
  const auto report = prepare_folder(folder_);
  EXPECT_EQ(report.records, 60);
  EXPECT_EQ(report.samples,
            (std::map<std::string, std::int64_t>{{"train", 48}, {"validation", 12}}));
  const auto file = DataFile::open(folder_ / "data.h5");
  EXPECT_EQ(file.kind(), "letters");
  EXPECT_EQ(file.licence(), "CC0-1.0");
  EXPECT_EQ(file.recipe(), read_text(folder_ / "recipe.toml"));
  EXPECT_EQ(file.labels(), (std::vector<std::string>{"0", "5", "10"})) << "sorted as numbers";
  EXPECT_EQ(file.tokenizer_sha256(), tokenizer_sha256(fixtures::tokenizer_json()));
  EXPECT_EQ(file.sources().at(0), (std::pair<std::string, std::string>(
                                      "data.csv", sha256_of_file(folder_ / "data.csv"))));
  for (const auto& name : file.splits()) EXPECT_NO_THROW(file.split(name).verify());
  EXPECT_FALSE(fs::exists(folder_ / "data.h5.partial"));
}

TEST_F(Prepare, StratifiedSplitsKeepTheShareOfEveryLabel) {
  write_recipe(folder_, 60);
  prepare_folder(folder_);
  const auto file = DataFile::open(folder_ / "data.h5");
  std::vector<std::int64_t> rows(12);
  std::vector<std::int64_t> counts(3);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int64_t>(i);
  for (const auto& sample : file.split("validation").read(rows))
    ++counts[static_cast<std::size_t>(sample.at("label").item<std::int64_t>())];
  EXPECT_EQ(counts, (std::vector<std::int64_t>{4, 4, 4}));
}

TEST_F(Prepare, TheSeedDecidesTheSplitAndNothingElseDoes) {
  const auto validation = [&](const std::string& split) {
    write_recipe(folder_, 60, split);
    prepare_folder(folder_);
    return DataFile::open(folder_ / "data.h5").split("validation").sha256();
  };
  const auto first = validation("[split]\nseed = 1\n");
  EXPECT_EQ(first, validation("[split]\nseed = 1\n"));
  EXPECT_NE(first, validation("[split]\nseed = 2\n"));
}

TEST_F(Prepare, SourcesMayNameTheirSplit) {
  write_recipe(folder_, 20,
               "split = \"train\"\n[[source]]\npath = \"held.csv\"\nsplit = \"test\"\n");
  write_text(folder_ / "held.csv", "text,label\nz z,0\nz y,5\n");
  EXPECT_EQ(prepare_folder(folder_).samples,
            (std::map<std::string, std::int64_t>{{"train", 20}, {"test", 2}}));
}

TEST_F(Prepare, DuplicatesAndRejectedSamplesAreCountedByReason) {
  write_recipe(folder_, 30, "[split]\nvalidation = 0.2\n", "max_length = 20\n");
  add_rows("bad one,0\nq q q,0\nq q q,0\nbad two,5\n");
  const auto report = prepare_folder(folder_);
  EXPECT_EQ(report.rejected.at("bad text").count, 2);
  EXPECT_EQ(report.rejected.at("duplicate").examples, std::vector<std::string>{"data.csv, row 34"});
  EXPECT_GT(report.rejected.at("too long").count, 0);
  const auto card = data_card(DataFile::open(folder_ / "data.h5"));
  EXPECT_THAT(card, AllOf(HasSubstr("bad text (first: "), HasSubstr("duplicate"),
                          HasSubstr("labels        3"), HasSubstr("CC0-1.0")));
}

TEST_F(Prepare, DuplicatesStayWhenTheRecipeSaysSo) {
  write_recipe(folder_, 10, "[clean]\ndeduplicate = \"none\"\n");
  add_rows("q,0\nq,0\n");
  EXPECT_EQ(prepare_folder(folder_).rejected.size(), 0u);
}

TEST_F(Prepare, AnEmptySplitIsRefused) {
  write_recipe(folder_, 5);
  write_text(folder_ / "data.csv", "text,label\na b,0\nb c,0\n");
  EXPECT_THAT(refusal(),
              AllOf(HasSubstr("the split 'validation' is empty"), HasSubstr("recipe.toml")));
  write_text(folder_ / "data.csv",
             "text,label\nbad 1,0\nbad 2,0\nbad 3,0\nbad 4,0\nbad 5,0\nbad 6,0\n");
  EXPECT_THAT(refusal(), HasSubstr("all its records were rejected (bad text: 5)"));
}

TEST_F(Prepare, AllMistakesOfARecipeAreReportedWithTheirPlaces) {
  write_recipe(folder_, 5,
               "splitt = \"train\"\n[clean]\ndeduplicate = \"nearly\"\n[split]\nvalidation = "
               "0.7\ntest = 0.7\n",
               "max_lenght = 3\n");
  const auto text = refusal();
  EXPECT_THAT(text, AllOf(HasSubstr("recipe.toml:6:1"), HasSubstr("max_length"),
                          HasSubstr("recipe.toml:9:1"), HasSubstr("did you mean 'near'"),
                          HasSubstr("add up to more than 1")));
}

TEST_F(Prepare, ARecipeWithoutSourcesOrWithAnUnknownKindIsRefused) {
  write_text(folder_ / "recipe.toml",
             "name = \"x\"\nkind = \"letters\"\nlicence = \"x\"\noutput = \"x.h5\"\ntokenizer = "
             "\"t.json\"\n");
  EXPECT_THAT(refusal(), HasSubstr("at least one [[source]]"));
  write_text(folder_ / "recipe.toml", "kind = \"leters\"\n");
  EXPECT_THAT(refusal(), HasSubstr("letters"));
}

TEST_F(Prepare, KilledHalfWayItLeavesOnlyTheTemporary) {
  write_recipe(folder_, 40,
               "split = \"train\"\n[[source]]\npath = \"held.csv\"\nsplit = \"validation\"\n");
  write_text(folder_ / "held.csv", "text,label\ndie,0\n");
  EXPECT_EXIT(prepare_folder(folder_), testing::KilledBySignal(SIGKILL), "");
  EXPECT_FALSE(fs::exists(folder_ / "data.h5"));
  EXPECT_TRUE(fs::exists(folder_ / "data.h5.partial"));
  write_text(folder_ / "held.csv", "text,label\nz z z,0\n");
  EXPECT_EQ(prepare_folder(folder_).samples.size(), 2u) << "the next attempt goes through";
  EXPECT_FALSE(fs::exists(folder_ / "data.h5.partial"));
}

TEST_F(Prepare, BatchesCarryTheirRows) {
  write_recipe(folder_, 20);
  prepare_folder(folder_);
  const auto file = DataFile::open(folder_ / "data.h5");
  const std::vector<std::int64_t> rows{5, 1};
  const Batch batch = load_batch(file.split("train"), fixtures::Letters({}), rows);
  EXPECT_EQ(batch.ids, rows);
  EXPECT_EQ(batch.length(),
            file.split("train").lengths("tokens")[5] + file.split("train").lengths("tokens")[1]);
}

}  // namespace
}  // namespace attune
