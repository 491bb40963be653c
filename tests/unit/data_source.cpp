// Sources, the order of samples, and packing.
#include <ATen/ops/tensor.h>
#include <attune/batch.hpp>
#include <attune/error.hpp>
#include <gmock/gmock.h>
#include <zlib.h>

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <set>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "data/sampler.hpp"
#include "prepare/source.hpp"

namespace attune {
namespace {
namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class Sources : public testing::Test {
 protected:
  fs::path folder_ = fs::path(testing::TempDir()) / ("attune-source-" + std::to_string(::getpid()));
  Ledger ledger_;  // of the last read
  Sources() { fs::create_directories(folder_); }
  ~Sources() override { fs::remove_all(folder_); }

  /// Every record of a file or folder here, block by block.
  std::vector<Record> read_source(SourceOptions options, const std::string& name) {
    options.path = name;
    ledger_ = Ledger();
    const auto source = scan_source(options, folder_ / name);
    std::vector<Record> records;
    for (const auto& block : source.blocks) read_block(source, block, ledger_, [&](Record& record) { records.push_back(record); });
    return records;
  }
  std::vector<Record> read(const std::string& name, const std::string& text, SourceOptions options = {}) {
    write_text(folder_ / name, text);
    return read_source(options, name);
  }
  std::string refusal(const std::string& name, const std::string& text, SourceOptions options = {}) {
    try {
      read(name, text, options);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }
  static SourceOptions mapped(OptionMap fields) {
    SourceOptions options;
    options.fields = std::move(fields);
    return options;
  }
  static SourceOptions laid_out(std::string layout) {
    SourceOptions options;
    options.layout = std::move(layout);
    return options;
  }
};

TEST_F(Sources, QuotedFieldsMayHoldDelimitersQuotesAndLineBreaks) {
  const auto records = read("a.csv", "text,label\n\"one, \"\"two\"\"\nthree\",x\nplain,y\n");
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].field("text"), "one, \"two\"\nthree");
  EXPECT_EQ(records[0].row, 2);
  EXPECT_EQ(records[1].field("label"), "y");
  EXPECT_EQ(records[1].row, 4) << "rows are lines, so that an editor finds them";
}

TEST_F(Sources, ByteOrderMarkCarriageReturnsEmptyLinesAndAMissingLastLineEndAreAccepted) {
  const auto records = read("a.csv", "\xef\xbb\xbftext,label\r\n\r\na,x\r\n\r\nb,");
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].field("label"), "x");
  EXPECT_EQ(records[1].field("text"), "b");
  EXPECT_EQ(records[1].field("label"), "");
}

TEST_F(Sources, NothingIsQuotedInTsv) {
  const auto records = read("a.tsv", "text\tlabel\n\"Alien\" is, well, good\t1\n");
  EXPECT_EQ(records.at(0).field("text"), "\"Alien\" is, well, good");
}

TEST_F(Sources, ACsvMayHaveAnotherDelimiter) {
  SourceOptions options;
  options.delimiter = ";";
  EXPECT_EQ(read("a.csv", "text;label\n\"a;b\";c\n", options).at(0).field("text"), "a;b");
}

TEST_F(Sources, GzippedFilesReadAsTheyWerePlain) {
  const auto path = folder_ / "a.jsonl.gz";
  const std::string text = "{\"text\": \"hello\", \"n\": 3, \"yes\": true}\n\n{\"text\": \"w\\u00f6rld\"}\n";
  gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);

  const auto records = read_source({}, "a.jsonl.gz");

  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].field("n"), "3");
  EXPECT_EQ(records[0].field("yes"), "true");
  EXPECT_EQ(records[1].field("text"), "wörld");
  EXPECT_EQ(records[1].row, 3);
  fs::resize_file(path, fs::file_size(path) - 12);
  EXPECT_THAT(([&]() -> std::string { try { read_source({}, "a.jsonl.gz"); } catch (const Error& e) { return e.what(); } return ""; })(),
              HasSubstr("cannot be unpacked"));
}

TEST_F(Sources, FieldsAreMappedAndOthersLeftOut) {
  const auto record = read("a.csv", "id,review,stars\n1,good,5\n", mapped({{"text", "review"}, {"label", "stars"}})).at(0);
  EXPECT_EQ(record.fields, (std::map<std::string, std::string>{{"text", "good"}, {"label", "5"}}));
}

TEST_F(Sources, LayoutsGivePromptAndResponse) {
  const auto pair = read("a.jsonl", R"({"prompt": "p", "completion": "c", "system": "s"})", laid_out("prompt_completion")).at(0);
  EXPECT_EQ(pair.fields, (std::map<std::string, std::string>{{"prompt", "p"}, {"response", "c"}, {"system", "s"}}));
  const auto alpaca = read("a.json", R"([{"instruction": "do", "input": "this", "output": "o"}, {"instruction": "do", "input": "", "output": "o"}])",
                           laid_out("alpaca"));
  EXPECT_EQ(alpaca.at(0).field("prompt"), "do\n\nthis");
  EXPECT_EQ(alpaca.at(1).field("prompt"), "do");
  EXPECT_EQ(alpaca.at(1).field("response"), "o");
  const auto chat = read("a.jsonl", R"({"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]})", laid_out("messages")).at(0);
  ASSERT_EQ(chat.messages.size(), 2u);
  EXPECT_EQ(chat.messages[1].role, "assistant");
  EXPECT_EQ(chat.messages[1].content, "a");
}

TEST_F(Sources, BadJsonIsRefusedWithItsRow) {
  EXPECT_THAT(refusal("a.jsonl", "{\"text\": 1}\n{\"text\": \n"), HasSubstr("a.jsonl, row 2: is not valid JSON"));
  EXPECT_THAT(refusal("a.jsonl", "[1]\n"), HasSubstr("row 1: is not a JSON object"));
  EXPECT_THAT(refusal("a.json", "{\"a\": 1}"), HasSubstr("should be one JSON list"));
}

TEST_F(Sources, RowsThatDoNotFitTheHeaderAreRefused) {
  EXPECT_THAT(refusal("a.csv", "text,label\na,b\nonly\n"), HasSubstr("a.csv, row 3: has 1 field where the header has 2 (text, label)"));
  EXPECT_THAT(refusal("a.csv", "text,label\na,b,c\n"), HasSubstr("row 2: has 3 fields"));
  EXPECT_THAT(refusal("a.csv", "text,text\na,b\n"), HasSubstr("two columns have the same name"));
  EXPECT_THAT(refusal("a.csv", "text,label\n\"open,b\nc,d\n"), HasSubstr("a quoted field that begins on line 2 is never closed"));
  EXPECT_THAT(refusal("a.csv", "text,label\n\"a\"b,c\n"), HasSubstr("text after a closing quote"));
  EXPECT_THAT(refusal("a.csv", ""), HasSubstr("is empty"));
}

TEST_F(Sources, AMissingFieldIsRefusedWithThoseThereAndTheNearest) {
  const auto text = refusal("a.csv", "text,category\na,b\n", mapped({{"label", "categroy"}}));
  EXPECT_THAT(text, HasSubstr("a.csv, row 2: there is no field 'categroy' (those there: category, text); did you mean 'category'?"));
  EXPECT_THAT(refusal("a.jsonl", "{\"prompt\": \"p\"}", laid_out("prompt_completion")), HasSubstr("no field 'completion'"));
  EXPECT_THAT(refusal("a.jsonl", "{\"text\": [1]}", mapped({{"text", "text"}})), HasSubstr("is a list"));
  EXPECT_THAT(refusal("a.jsonl", R"({"messages": [{"role": "bot", "content": ""}]})", laid_out("messages")), HasSubstr("the role 'bot'"));
}

TEST_F(Sources, FilesThatCannotBeReadAreRefused) {
  EXPECT_THAT(refusal("a.csv", "\xff\xfe" "t"), HasSubstr("is UTF-16"));
  EXPECT_THAT(refusal("a.data", "x"), HasSubstr("set format"));
  EXPECT_THROW(read_source({}, "absent.csv"), Error);
}

TEST_F(Sources, AChecksumThatDiffersIsRefused) {
  SourceOptions options;
  options.sha256 = sha256("text\na\n");
  EXPECT_EQ(read("a.csv", "text\na\n", options).size(), 1u);
  EXPECT_THAT(refusal("a.csv", "text\nb\n", options), HasSubstr("its sha256 is"));
}

TEST(Record, AnAbsentFieldIsRefusedWithThoseThere) {
  Record record{{{"prompt", "p"}}, {}, {}, "a.csv", 7};
  try {
    record.field("text");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("a.csv, row 7: there is no field 'text'; there are: prompt"));
  }
}

TEST(Sampler, EveryEpochIsAPermutationAndNoTwoAreAlike) {
  constexpr std::int64_t size = 10, batch = 4;
  Sampler sampler(size, batch, 7);
  std::vector<std::int64_t> stream;
  for (std::int64_t step = 0; step < 10; ++step) {
    const auto rows = sampler.step_rows(step);
    ASSERT_EQ(rows.size(), 4u) << "also across an epoch's end";
    stream.insert(stream.end(), rows.begin(), rows.end());
  }
  std::set<std::vector<std::int64_t>> epochs;
  for (std::int64_t epoch = 0; epoch < 4; ++epoch) {
    const std::vector<std::int64_t> order(stream.begin() + epoch * size, stream.begin() + (epoch + 1) * size);
    EXPECT_EQ(std::set<std::int64_t>(order.begin(), order.end()).size(), 10u);
    epochs.insert(order);
  }
  EXPECT_EQ(epochs.size(), 4u);
  EXPECT_EQ(sampler.epoch_of(2), 0);
  EXPECT_EQ(sampler.epoch_of(3), 1);
}

TEST(Sampler, StepsCanBeAskedForInAnyOrder) {
  Sampler forward(9, 4, 3), resumed(9, 4, 3);
  for (std::int64_t step = 0; step < 5; ++step) forward.step_rows(step);
  EXPECT_EQ(forward.step_rows(5), resumed.step_rows(5));
  EXPECT_EQ(forward.step_rows(1), resumed.step_rows(1));
}

TEST(Sampler, TheOrderIsTheSameOnEveryMachine) {
  EXPECT_THAT(permutation(8, 0, 0), testing::Not(ElementsAre(0, 1, 2, 3, 4, 5, 6, 7)));
  EXPECT_NE(permutation(50, 0, 1), permutation(50, 1, 0));
  EXPECT_EQ(permutation(50, 5, 2), permutation(50, 5, 2));
}

TEST(Sampler, SharesCoverTheStepAndDifferByAtMostOne) {
  for (int ranks = 1; ranks <= 5; ++ranks) {
    std::vector<std::int64_t> rows(13), together;
    std::iota(rows.begin(), rows.end(), 100);
    for (int rank = 0; rank < ranks; ++rank) {
      const auto share = Sampler::share(rows, rank, ranks);
      EXPECT_LE(share.size(), 13u / ranks + 1);
      EXPECT_GE(share.size(), 13u / ranks);
      together.insert(together.end(), share.begin(), share.end());
    }
    EXPECT_EQ(together, rows);
  }
}

TEST(Sampler, ABatchThatCannotBeSharedIsRefused) {
  EXPECT_THROW(Sampler(3, 4, 0), Error);
  EXPECT_THROW(Sampler(8, 2, 0, 4), Error);
  EXPECT_NO_THROW(Sampler(4, 4, 0, 4));
}

TEST(Pack, SamplesLieEndToEnd) {
  const Batch batch = pack({at::tensor({5, 6, 7}, at::kInt), at::tensor({8}, at::kLong)});
  EXPECT_EQ(batch.starts, (std::vector<std::int64_t>{0, 3, 4}));
  EXPECT_TRUE(batch.tokens.equal(at::tensor({5, 6, 7, 8}, at::kLong)));
  EXPECT_TRUE(batch.positions.equal(at::tensor({0, 1, 2, 0}, at::kLong)));
  EXPECT_EQ(pack({}).samples(), 0);
}

}  // namespace
}  // namespace attune
