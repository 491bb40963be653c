// prepare over ranks: the same content whatever their number.
#include <attune/error.hpp>
#include <gmock/gmock.h>

#include <cstdlib>

#include "data_fixtures.hpp"
#include "parallel/mpi.hpp"

namespace attune {
namespace {
namespace fs = std::filesystem;

/// One folder for all ranks, gone at the end.
class DataOverRanks : public testing::Test {
 protected:
  Comm comm_ = world();
  fs::path folder_;
  DataOverRanks() {
    folder_ = comm_.broadcast(
        (fs::path(testing::TempDir()) / ("attune-ranks-" + std::to_string(::getpid()))).string());
    if (comm_.root()) fs::create_directories(folder_);
    comm_.barrier();
  }
  ~DataOverRanks() override {
    comm_.barrier();
    if (comm_.root()) fs::remove_all(folder_);
  }

  /// Prepares on all ranks and then on rank 0 alone.
  PrepareReport expect_the_same_on_one_rank() {
    const auto report = fixtures::prepare_folder(folder_, comm_);
    std::map<std::string, std::string> sums;
    {
      const auto together = DataFile::open(folder_ / "data.h5", comm_);
      for (const auto& name : together.splits()) {
        EXPECT_NO_THROW(together.split(name).verify());
        sums[name] = together.split(name).sha256();
      }
    }
    comm_.barrier();
    if (!comm_.root()) return report;
    const auto list = folder_ / "data.h5.rejected.jsonl";
    const auto listed = fs::exists(list) ? read_text(list) : "";
    fs::rename(folder_ / "data.h5", folder_ / "together.h5");
    const auto alone_report = fixtures::prepare_folder(folder_);
    const auto alone = DataFile::open(folder_ / "data.h5");
    EXPECT_EQ(report.records, alone_report.records);
    EXPECT_EQ(report.samples, alone_report.samples);
    expect_the_same(report.rejected, alone_report.rejected);
    expect_the_same(report.changed, alone_report.changed);
    EXPECT_EQ(fs::exists(list) ? read_text(list) : "", listed);
    for (const auto& name : alone.splits()) {
      EXPECT_EQ(sums.at(name), alone.split(name).sha256()) << name;
      for (const auto& column : {"tokens", "tokens.offsets", "label", "grid"})
        EXPECT_TRUE(hdf5::open_file(folder_ / "data.h5")
                        .group(name)
                        .read(column)
                        .equal(hdf5::open_file(folder_ / "together.h5").group(name).read(column)));
    }
    return report;
  }
  static void expect_the_same(const Tallies& one, const Tallies& other) {
    EXPECT_EQ(one.size(), other.size());
    for (const auto& [reason, tally] : other) {
      ASSERT_TRUE(one.contains(reason)) << reason;
      EXPECT_EQ(one.at(reason).count, tally.count) << reason;
      EXPECT_EQ(one.at(reason).examples, tally.examples) << reason;
    }
  }
  /// About 2 kB, alike in most words when i are less than 5 apart.
  static std::string long_letters(int i) {
    std::string text;
    auto state = static_cast<std::uint32_t>(i / 5);
    for (int j = 0; j < 1000; ++j) {
      state = state * 1664525 + 1013904223;
      text += static_cast<char>(
          'a' + ((state >> 16) + (j % 250 == i % 5 ? static_cast<std::uint32_t>(i) : 0)) % 26);
      text += ' ';
    }
    return text;
  }

  void write(int rows) {
    if (comm_.root())
      fixtures::write_recipe(folder_, rows, "[split]\nvalidation = 0.03\n", "max_length = 22\n");
    comm_.barrier();
  }
};

TEST_F(DataOverRanks, ContentIsTheSameAsOnOneRank) {
  // less than a chunk for all ranks; several chunks, shared by ranks
  for (const int rows : {34, 3001}) {
    write(rows);
    expect_the_same_on_one_rank();
  }
}

/// Every step at work, sources of several forms and several blocks, and more than one round of
/// encoding.
TEST_F(DataOverRanks, ContentIsTheSameWithEveryStepAndManyBlocks) {
  if (comm_.root()) {
    fixtures::write_recipe(folder_, 500, R"(weight = 1.5
on_error = "skip"
[[source]]
path = "lines.jsonl"
on_error = "skip"
[[source]]
path = "list.json"
weight = 0.5
[[source]]
path = "held.tsv"
split = "validation"
[clean]
normalize = "nfc"
control_characters = true
max_length = 6000
deduplicate = "near"
[privacy]
mask = ["email", "ip"]
[split]
validation = 0.05
test = 0.05
stratify = true
leakage = "near"
[balance]
method = "up"
[augment]
copies = 1
[truncate]
max_length = 900
policy = "window"
overlap = 10
)",
                           "list_rejected = true\n");
    std::string lines;
    std::string list = "[";
    std::string held = "text\tlabel\n";
    for (int i = 0; i < 3000; ++i) {
      const nlohmann::json object{{"text", long_letters(i % 2800)},
                                  {"label", std::to_string(i % 3 * 5)}};
      lines += i % 500 == 499 ? "broken\n" : object.dump() + "\n";
      list += (i ? ", " : "") +
              nlohmann::json{{"text", long_letters(i + 2600) + " a@b.org"}, {"label", "5"}}.dump();
    }
    for (int i = 0; i < 200; ++i) held += long_letters(i * 40) + "\t0\n";
    write_text(folder_ / "data.csv", read_text(folder_ / "data.csv") + "bad one,0\nonly\n");
    write_text(folder_ / "lines.jsonl", lines);
    write_text(folder_ / "list.json", list + "]");
    write_text(folder_ / "held.tsv", held);
  }
  comm_.barrier();
  const auto report = expect_the_same_on_one_rank();
  if (!comm_.root()) return;
  for (const auto* reason :
       {"duplicate", "nearly a duplicate", "not valid JSON", "fields that do not match the header",
        "dropped by the weight 0.5 of list.json", "bad text"})
    EXPECT_TRUE(report.rejected.contains(reason)) << reason;
}

TEST_F(DataOverRanks, H5pyReadsTheFile) {
  write(700);
  fixtures::prepare_folder(folder_, comm_);
  if (!comm_.root()) return;
  const std::string source = ATTUNE_SOURCE_DIR;
  const auto command = source + "/.venv/bin/python " + source + "/tests/mpi/data_check.py " +
                       (folder_ / "data.h5").string();
  EXPECT_EQ(std::system(command.c_str()), 0);
}

TEST_F(DataOverRanks, OneRanksMistakeEndsAllAndLeavesNothing) {
  write(40);
  if (comm_.root()) write_text(folder_ / "data.csv", read_text(folder_ / "data.csv") + "only\n");
  comm_.barrier();
  EXPECT_THROW(fixtures::prepare_folder(folder_, comm_), Error);
  comm_.barrier();
  EXPECT_FALSE(fs::exists(folder_ / "data.h5"));
  EXPECT_FALSE(fs::exists(folder_ / "data.h5.partial"));
}

}  // namespace
}  // namespace attune
