// Model folders of every kind, read as transformers' AutoTokenizer reads them (see
// tokenizer_folders.py).
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sstream>

#include "attune/error.hpp"
#include "attune/tokenizer.hpp"
#include "core/files.hpp"
#include "weights/tokenizer_files.hpp"

namespace attune {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::json;
using Ids = std::vector<std::int32_t>;

struct Count {
  int same = 0;
  int refused = 0;
};

/// Fails where ids or special tokens differ from the expected ones. A folder that AutoTokenizer
/// refuses may be read or refused.
void compare(const fs::path& folder, Count& count) {
  const auto expected = folder / "expected.jsonl";
  std::optional<Tokenizer> tokenizer;
  try {
    tokenizer.emplace(open_tokenizer(folder));
  } catch (const Error& error) {
    if (std::getenv("ATTUNE_SHOW_REFUSALS")) fmt::print("{}\n", error.what());
    ++count.refused;
    return;
  }
  if (!fs::exists(expected)) return;
  EXPECT_EQ(Json(special_tokens_of(folder)), Json::parse(read_text(folder / "special.json")))
      << folder.filename();
  std::istringstream rows(read_text(expected));
  for (std::string line; std::getline(rows, line);) {
    const auto row = Json::parse(line);
    const auto text = row.at("text").get<std::string>();
    const auto ids = tokenizer->encode(text);
    const auto plain = tokenizer->encode(text, false);
    EXPECT_EQ(ids, row.at("ids").get<Ids>()) << folder.filename() << ": " << row.at("text");
    EXPECT_EQ(plain, row.at("plain").get<Ids>()) << folder.filename() << ": " << row.at("text");
    if (ids != row.at("ids") || plain != row.at("plain")) return;
  }
  ++count.same;
}

Count compare_all(const std::string& name, const std::string& arguments) {
  const auto root = fs::temp_directory_path() / fmt::format("attune-{}-{}", name, ::getpid());
  fs::remove_all(root);
  const auto command =
      fmt::format("{0}/.venv/bin/python {0}/tests/parity/tokenizer_folders.py {1} {2}",
                  ATTUNE_SOURCE_DIR, root.string(), arguments);
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
  Count count;
  for (const auto& entry : fs::directory_iterator(root)) compare(entry.path(), count);
  if (!testing::Test::HasFailure()) fs::remove_all(root);
  return count;
}

TEST(TokenizerFolders, AreReadAsAutoTokenizerReadsThem) {
  const auto count = compare_all("folders", "");
  EXPECT_GE(count.same, 100);
  fmt::print("{} folders read alike, {} refused\n", count.same, count.refused);
}

TEST(TokenizerFolders, OfRandomSettingsAreReadAlike) {
  const char* seconds = std::getenv("ATTUNE_SECONDS");
  const auto count = compare_all(
      "drawn", fmt::format("{} {}", seconds ? seconds : "5",
                           std::getenv("ATTUNE_SEED") ? std::getenv("ATTUNE_SEED") : "17"));
  EXPECT_GE(count.same, 20);
  fmt::print("{} folders read alike, {} refused\n", count.same, count.refused);
}

}  // namespace
}  // namespace attune
