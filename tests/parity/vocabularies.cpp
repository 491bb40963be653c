// The vocabularies of real models that llama.cpp packages as GGUF files without weights
// (launchers/fetch vocabularies).
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>
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

fs::path place_of(const std::string& name) {
  return name == "minilm" ? vocabularies.parent_path() / name
                          : vocabularies / fmt::format("ggml-vocab-{}.gguf", name);
}

int compare(const std::string& name, const fs::path& expected) {
  const Tokenizer tokenizer(open_tokenizer(place_of(name)));
  std::istringstream rows(read_text(expected));
  int count = 0;
  for (std::string line; std::getline(rows, line); ++count) {
    const auto row = Json::parse(line);
    EXPECT_EQ(tokenizer.encode(row.at("text").get<std::string>(), false), row.at("ids").get<Ids>())
        << name << ": " << row.at("text");
  }
  return count;
}

/// The number of texts by vocabulary.
std::map<std::string, int> compare_all(const std::string& arguments) {
  EXPECT_TRUE(fs::exists(vocabularies)) << "run launchers/fetch vocabularies";
  const auto folder = fs::temp_directory_path() / fmt::format("attune-vocabularies-{}", ::getpid());
  const auto command =
      fmt::format("{0}/.venv/bin/python {0}/tests/parity/vocabularies.py {1} {2} {3}",
                  ATTUNE_SOURCE_DIR, vocabularies.string(), folder.string(), arguments);
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
  std::map<std::string, int> counts;
  for (const auto& entry : fs::directory_iterator(folder))
    counts[entry.path().stem()] = compare(entry.path().stem(), entry.path());
  fs::remove_all(folder);
  return counts;
}

TEST(Vocabularies, GiveTheIdsOfTheirModels) {
  const auto counts = compare_all("");
  EXPECT_EQ(counts.size(), 17U);
  for (const auto& [name, count] : counts) EXPECT_GE(count, 47) << name;
}

TEST(Vocabularies, OfRandomTextsGiveTheSameIds) {
  const char* seconds = std::getenv("ATTUNE_SECONDS");
  const char* seed = std::getenv("ATTUNE_SEED");
  for (const auto& [name, count] :
       compare_all(fmt::format("{} {}", seconds ? seconds : "2", seed ? seed : "1"))) {
    EXPECT_GE(count, 50) << name;
    fmt::print("{}: {} texts\n", name, count);
  }
}

}  // namespace
}  // namespace attune
