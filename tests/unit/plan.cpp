// Machine files.
#include "plan/machine.hpp"

#include <attune/error.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/files.hpp"

namespace {

using namespace attune;
using plan::Machine;
using plan::Rates;
using testing::HasSubstr;

std::filesystem::path file(const std::string& text) {
  const auto path = std::filesystem::path(testing::TempDir()) / "machine.toml";
  write_text(path, text);
  return path;
}

std::string refusal(const std::string& text) {
  try {
    plan::read_machine(file(text).string());
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

Machine example() {
  Machine machine;
  machine.name = "example";
  machine.source = "measured";
  machine.node = {4, 64e9, 0, 1.5e8};
  machine.alone = {1e11, 2e11, 4e10, 7e9};
  machine.together = {1.8e11, 3e11, 6e10, 1.6e10};
  machine.training = {6e-7, 2e-5, 0.25, 1, 2e9};
  machine.between = {1.2e10, 3e-6};
  return machine;
}

TEST(Machine, IsReadAsItWasWritten) {
  const auto path = std::filesystem::path(testing::TempDir()) / "written.toml";
  const auto machine = example();
  plan::write_machine(path, machine);
  const auto read = plan::read_machine(path.string());
  EXPECT_EQ(read.name, "example");
  EXPECT_EQ(read.source, "measured");
  EXPECT_EQ(read.node.ranks, 4);
  EXPECT_EQ(read.node.memory, 64e9);
  EXPECT_EQ(read.node.program, 1.5e8);
  EXPECT_EQ(read.alone.bfloat16, 2e11);
  EXPECT_EQ(read.together.sums, 1.6e10);
  EXPECT_EQ(read.training.hidden, 0.25);
  EXPECT_EQ(read.training.disk, 2e9);
  EXPECT_EQ(read.between.sums, 1.2e10);
  EXPECT_FALSE(read.has_gpus());
}

TEST(Machine, SharesItsRatesAmongTheRanksOfANode) {
  const auto machine = example();
  EXPECT_EQ(machine.of_rank(&Rates::float32, 1), 1e11);
  EXPECT_EQ(machine.of_rank(&Rates::float32, 2), 0.9e11);
  EXPECT_EQ(machine.of_rank(&Rates::float32, 4), 0.45e11);
}

TEST(Machine, IsRefusedWhereItIsWrong) {
  EXPECT_THAT(refusal("[node]\nranks = 0\nmemory = 1e9\n"), HasSubstr(":2:"));
  EXPECT_THAT(refusal("[node]\nrank = 4\n"), HasSubstr("ranks"));
  EXPECT_THAT(refusal("[nodes]\nranks = 4\n"), HasSubstr("node"));
  EXPECT_THAT(refusal("[training]\nhidden = 1.5\n"), HasSubstr("hidden"));
  EXPECT_THAT(refusal("[node]\nranks = 4\nmemory = 1e9\n"), HasSubstr("[alone] needs float32"));
}

TEST(Machine, IsFoundByItsNameOrRefusedWithTheOthers) {
  EXPECT_THROW(plan::read_machine("./nowhere.toml"), Error);
  try {
    plan::read_machine("dgx-h200");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("there is no machine 'dgx-h200'"));
  }
}

}  // namespace
