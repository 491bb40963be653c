// The vocabularies of real models that llama.cpp packages as GGUF files without weights (launchers/fetch vocabularies).
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "attune/tokenizer.hpp"
#include "core/files.hpp"
#include "weights/tokenizer_files.hpp"

namespace attune {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::json;
using Ids = std::vector<std::int32_t>;

const fs::path vocabularies = fs::path(ATTUNE_SOURCE_DIR) / "models/vocabularies";

void compare(const std::string& name, const fs::path& expected) {
  const Tokenizer tokenizer(open_tokenizer(vocabularies / fmt::format("ggml-vocab-{}.gguf", name)).tokenizer);
  std::istringstream rows(read_text(expected));
  int count = 0;
  for (std::string line; std::getline(rows, line); ++count) {
    const auto row = Json::parse(line);
    EXPECT_EQ(tokenizer.encode(row.at("text").get<std::string>(), false), row.at("ids").get<Ids>()) << name << ": " << row.at("text");
  }
  EXPECT_GE(count, 47) << name;
}

TEST(Vocabularies, GiveTheIdsOfTheirModels) {
  ASSERT_TRUE(fs::exists(vocabularies)) << "run launchers/fetch vocabularies";
  const auto folder = fs::temp_directory_path() / fmt::format("attune-vocabularies-{}", ::getpid());
  const auto command = fmt::format("{0}/.venv/bin/python {0}/tests/parity/vocabularies.py {1} {2}", ATTUNE_SOURCE_DIR, vocabularies.string(), folder.string());
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
  int count = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    compare(entry.path().stem(), entry.path());
    ++count;
  }
  EXPECT_EQ(count, 17);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace attune
