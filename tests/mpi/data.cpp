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
    folder_ = comm_.broadcast((fs::path(testing::TempDir()) / ("attune-ranks-" + std::to_string(::getpid()))).string());
    if (comm_.root()) fs::create_directories(folder_);
    comm_.barrier();
  }
  ~DataOverRanks() override {
    comm_.barrier();
    if (comm_.root()) fs::remove_all(folder_);
  }

  void write(int rows) {
    if (comm_.root()) fixtures::write_recipe(folder_, rows, "[split]\nvalidation = 0.03\n", "max_length = 22\n");
    comm_.barrier();
  }
};

TEST_F(DataOverRanks, ContentIsTheSameAsOnOneRank) {
  for (const int rows : {34, 3001}) {  // less than a chunk for all ranks; several chunks, shared by ranks
    write(rows);
    const auto report = fixtures::prepare_folder(folder_, comm_);
    std::map<std::string, std::string> sums;
    const auto together = DataFile::open(folder_ / "data.h5", comm_);
    for (const auto& name : together.splits()) {
      EXPECT_NO_THROW(together.split(name).verify());
      sums[name] = together.split(name).sha256();
    }
    comm_.barrier();
    if (!comm_.root()) continue;
    fs::rename(folder_ / "data.h5", folder_ / "together.h5");
    const auto alone_report = fixtures::prepare_folder(folder_);
    const auto alone = DataFile::open(folder_ / "data.h5");
    EXPECT_EQ(report.samples, alone_report.samples);
    for (const auto& [reason, rejection] : alone_report.rejected) {
      EXPECT_EQ(report.rejected.at(reason).count, rejection.count);
      EXPECT_EQ(report.rejected.at(reason).examples, rejection.examples);
    }
    for (const auto& name : alone.splits()) {
      EXPECT_EQ(sums.at(name), alone.split(name).sha256()) << name;
      for (const auto& column : {"tokens", "tokens.offsets", "label", "grid"})
        EXPECT_TRUE(hdf5::open_file(folder_ / "data.h5").group(name).read(column).equal(
            hdf5::open_file(folder_ / "together.h5").group(name).read(column)));
    }
  }
}

TEST_F(DataOverRanks, H5pyReadsTheFile) {
  write(700);
  fixtures::prepare_folder(folder_, comm_);
  if (!comm_.root()) return;
  const std::string source = ATTUNE_SOURCE_DIR;
  const auto command = source + "/.venv/bin/python " + source + "/tests/mpi/data_check.py " + (folder_ / "data.h5").string();
  EXPECT_EQ(std::system(command.c_str()), 0);
}

TEST_F(DataOverRanks, OneRanksMistakeEndsAllAndLeavesNothing) {
  write(40);
  if (comm_.root()) write_text(folder_ / "data.csv", read_text(folder_ / "data.csv") + "only\n");
  comm_.barrier();
  EXPECT_THROW(fixtures::prepare_folder(folder_, comm_), Error);
  EXPECT_FALSE(fs::exists(folder_ / "data.h5"));
}

}  // namespace
}  // namespace attune
