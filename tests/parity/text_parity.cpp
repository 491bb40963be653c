// Our tokenizers against `tokenizers` and `transformers`, token for token, on the real models. The reference is written by text_parity.py.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "attune/tokenizer.hpp"
#include "core/files.hpp"
#include "text/convert.hpp"
#include "text/unicode.hpp"
#include "weights/gguf.hpp"

namespace attune {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<std::int32_t>;
namespace fs = std::filesystem;

const fs::path models = fs::path(ATTUNE_SOURCE_DIR) / "models";
const fs::path folder = fs::path(ATTUNE_BINARY_DIR) / "text_parity";

Json read_json(const fs::path& path) { return Json::parse(read_text(path)); }

std::vector<Json> read_lines(const fs::path& path) {
  std::ifstream file(path);
  std::vector<Json> rows;
  for (std::string line; std::getline(file, line);) rows.push_back(Json::parse(line));
  return rows;
}

/// All tokenizer.json files and what the reference makes of the samples, made once.
class TextParity : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    fs::remove_all(folder);
    Json metadata = GgufFile(models / "smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf").metadata();
    chat_template = metadata.at("tokenizer.chat_template");
    for (const char* pre : {"smollm", "gpt-2", "llama-bpe", "qwen2", "default"}) {
      metadata["tokenizer.ggml.pre"] = pre;
      metadata["tokenizer.ggml.add_bos_token"] = pre == std::string("llama-bpe");
      write_text(folder / (pre + std::string(".json")), text::tokenizer_json_from_gguf(metadata).dump());
    }
    write_text(folder / "minilm.json", read_text(models / "minilm/tokenizer.json"));
    const auto vocab = read_text(models / "minilm/vocab.txt");
    write_text(folder / "vocab-uncased.json", text::tokenizer_json_from_vocab(vocab, true).dump());
    write_text(folder / "vocab-cased.json", text::tokenizer_json_from_vocab(vocab, false).dump());
    const auto command = fmt::format("{0}/.venv/bin/python {0}/tests/parity/text_parity.py {1} {2}", ATTUNE_SOURCE_DIR, folder.string(), models.string());
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  }

  static std::string chat_template;
};
std::string TextParity::chat_template;

TEST_F(TextParity, EachPipelineGivesTheReferencesIdsAndText) {
  std::size_t pipelines = 0, texts = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    ++pipelines;
    const Tokenizer tokenizer(read_json(entry.path()));
    int shown = 0;
    for (const auto& row : read_lines(fs::path(entry.path()).replace_extension(".jsonl"))) {
      ++texts;
      const auto sample = row.at("text").get<std::string>();
      const auto special = row.at("special").get<Ids>();
      const bool same = tokenizer.encode(sample, false) == row.at("ids").get<Ids>() && tokenizer.encode(sample) == special &&
                        text::valid_utf8(tokenizer.decode(special)) == row.at("decoded") &&
                        text::valid_utf8(tokenizer.decode(special, false)) == row.at("decoded_whole");
      if (same || ++shown > 3) continue;
      ADD_FAILURE() << entry.path().stem() << ": " << row.at("text") << "\nreference " << row.at("special") << " " << row.at("decoded") << "\nours      "
                    << Json(tokenizer.encode(sample)) << " " << Json(text::valid_utf8(tokenizer.decode(special)));
    }
    EXPECT_LE(shown, 3) << entry.path().stem() << ": " << shown << " texts differ in all";
  }
  EXPECT_GE(pipelines, 40u);
  EXPECT_GE(texts, 15000u);
}

TEST_F(TextParity, GgufVocabularyGivesTransformersIdsWhereThereAreNoNumbers) {
  const Tokenizer tokenizer(read_json(folder / "smollm.json"));
  const auto rows = read_lines(folder / "transformers.jsonl");
  ASSERT_GE(rows.size(), 500u);
  for (const auto& row : rows) ASSERT_EQ(tokenizer.encode(row.at("text").get<std::string>()), row.at("ids").get<Ids>()) << row.at("text");
}

TEST_F(TextParity, KnownSentenceHasItsKnownIds) {
  const Tokenizer tokenizer(read_json(folder / "smollm.json"));
  EXPECT_EQ(tokenizer.encode("The capital of France is"), (Ids{504, 3575, 282, 4649, 314}));
  EXPECT_EQ(tokenizer.size(), 49152);
}

TEST_F(TextParity, VocabTxtGivesTheTokenizerThatTheModelCameWith) {
  const Tokenizer from_vocab(read_json(folder / "vocab-uncased.json"));
  for (const auto& row : read_lines(folder / "minilm.jsonl"))
    ASSERT_EQ(from_vocab.encode(row.at("text").get<std::string>()), row.at("special").get<Ids>()) << row.at("text");
}

TEST_F(TextParity, ChatIsRenderedAsTheModelsOwnTemplateDoes) {
  const Tokenizer tokenizer(read_json(folder / "smollm.json"));
  EXPECT_EQ(chat_template, read_text(folder / "chat_template.txt"));
  const auto chat = ChatTemplate::recognise(chat_template);
  const auto rows = read_lines(folder / "chat.jsonl");
  ASSERT_GE(rows.size(), 200u);
  for (const auto& row : rows) {
    std::vector<Message> messages;
    for (const auto& message : row.at("messages")) messages.push_back({message.at("role"), message.at("content")});
    ASSERT_EQ(chat.encode(messages, tokenizer).tokens, row.at("ids").get<Ids>()) << row.at("messages");
    ASSERT_EQ(chat.prompt(messages, tokenizer), row.at("prompt").get<Ids>()) << row.at("messages");
  }
}

}  // namespace
}  // namespace attune
