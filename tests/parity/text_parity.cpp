// Our tokenizers against `tokenizers` and `transformers`, token for token, on the real models. The
// reference is written by text_parity.py.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "attune/rejected.hpp"
#include "attune/tokenizer.hpp"
#include "core/files.hpp"
#include "tokenizer_folders.hpp"
#include "text/convert.hpp"
#include "text/unicode.hpp"
#include "weights/chat_template_files.hpp"
#include "weights/gguf.hpp"

namespace attune {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<std::int32_t>;
namespace fs = std::filesystem;

const fs::path models = fs::path(ATTUNE_SOURCE_DIR) / "models";
const fs::path docs = fs::path(ATTUNE_SOURCE_DIR) / "data/pydocs/documents.jsonl";
const fs::path folder = fs::path(ATTUNE_BINARY_DIR) / "text_parity";

Json read_json(const fs::path& path) { return Json::parse(read_text(path)); }

std::vector<Json> read_lines(const fs::path& path) {
  std::ifstream file(path);
  std::vector<Json> rows;
  for (std::string line; std::getline(file, line);) rows.push_back(Json::parse(line));
  return rows;
}

/// Spans in characters, as the reference counts.
std::vector<Span> in_characters(std::string_view text, std::vector<Span> spans) {
  std::vector<std::size_t> character(text.size() + 1);
  for (std::size_t i = 0; i < text.size(); ++i)
    character[i + 1] = character[i] + ((text[i] & 0xC0) != 0x80);
  for (auto& [begin, end] : spans) {
    begin = character[begin];
    end = character[end];
  }
  return spans;
}

Json as_json(const std::vector<Span>& spans) {
  Json json = Json::array();
  for (const auto& [begin, end] : spans) json.push_back({begin, end});
  return json;
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
      write_text(folder / (pre + std::string(".json")),
                 text::tokenizer_json_from_gguf(metadata).dump());
    }
    write_text(folder / "minilm.json", read_text(models / "minilm/tokenizer.json"));
    const auto vocab = read_text(models / "minilm/vocab.txt");
    write_text(folder / "vocab-uncased.json", fixtures::tokenizer_of_vocab(vocab, true).dump());
    write_text(folder / "vocab-cased.json", fixtures::tokenizer_of_vocab(vocab, false).dump());
    const auto command = fmt::format(
        "{0}/.venv/bin/python {0}/tests/parity/text_parity.py {1} {2} "
        "{0}/data/pydocs/documents.jsonl",
        ATTUNE_SOURCE_DIR, folder.string(), models.string());
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  }

  static std::string chat_template;
};
std::string TextParity::chat_template;

TEST_F(TextParity, EachPipelineGivesTheReferencesIdsAndText) {
  std::size_t pipelines = 0;
  std::size_t texts = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    ++pipelines;
    const Tokenizer tokenizer(read_json(entry.path()));
    int shown = 0;
    for (const auto& row : read_lines(fs::path(entry.path()).replace_extension(".jsonl"))) {
      ++texts;
      const auto sample = row.at("text").get<std::string>();
      const auto special = row.at("special").get<Ids>();
      const auto encoding = tokenizer.encode_with_spans(sample);
      const auto offsets = as_json(in_characters(sample, encoding.spans));
      const bool same =
          tokenizer.encode(sample, false) == row.at("ids").get<Ids>() &&
          tokenizer.encode(sample) == special && encoding.ids == special &&
          offsets == row.at("offsets") &&
          text::valid_utf8(tokenizer.decode(special)) == row.at("decoded") &&
          text::valid_utf8(tokenizer.decode(special, false)) == row.at("decoded_whole");
      if (same || ++shown > 3) continue;
      ADD_FAILURE() << entry.path().stem() << ": " << row.at("text").dump().substr(0, 2000)
                    << "\nreference " << row.at("special").dump().substr(0, 2000) << " "
                    << row.at("decoded").dump().substr(0, 1000) << "\nours      "
                    << Json(tokenizer.encode(sample)).dump().substr(0, 2000) << " "
                    << Json(text::valid_utf8(tokenizer.decode(special))).dump().substr(0, 1000)
                    << "\noffsets\nreference " << row.at("offsets").dump().substr(0, 2000)
                    << "\nours      " << offsets.dump().substr(0, 2000);
    }
    EXPECT_LE(shown, 3) << entry.path().stem() << ": " << shown << " texts differ in all";
  }
  EXPECT_GE(pipelines, 65u);
  EXPECT_GE(texts, 40000u);
}

/// Every document of the Python documentation, as docs/NAME.bin has it.
void expect_docs_equal(const Tokenizer& tokenizer, const fs::path& reference) {
  std::vector<std::string> texts;
  std::ifstream lines(docs);
  for (std::string line; std::getline(lines, line);)
    texts.push_back(nlohmann::json::parse(line).at("text"));
  ASSERT_GE(texts.size(), 400u);
  std::ifstream file(reference, std::ios::binary);
  const auto read = [&](std::size_t count) {
    Ids numbers(count);
    file.read(reinterpret_cast<char*>(numbers.data()),
              static_cast<std::streamsize>(count * sizeof(std::int32_t)));
    return numbers;
  };
  for (const auto& text : texts) {
    const auto size = static_cast<std::size_t>(read(1)[0]);
    const auto encoding = tokenizer.encode_with_spans(text);
    ASSERT_EQ(encoding.ids, read(size)) << reference << ": " << text.substr(0, 80);
    Ids offsets;
    for (const auto& [begin, end] : in_characters(text, encoding.spans))
      offsets.insert(offsets.end(), {static_cast<int>(begin), static_cast<int>(end)});
    ASSERT_EQ(offsets, read(2 * size)) << reference << ": " << text.substr(0, 80);
    ASSERT_EQ(tokenizer.encode(text), encoding.ids) << text.substr(0, 80);
  }
}

TEST_F(TextParity, WholePythonDocumentationGivesTheReferencesIdsAndOffsets) {
  for (const char* kind : {"smollm", "minilm"})
    expect_docs_equal(Tokenizer(read_json(folder / fmt::format("{}.json", kind))),
                      folder / fmt::format("docs/{}.bin", kind));
}

TEST_F(TextParity, InvalidUtf8IsReadAsPythonReplacesItAndCounted) {
  std::map<std::string, Tokenizer> tokenizers;
  for (const char* kind : {"smollm", "minilm", "llama2-legacy", "t5"})
    tokenizers.emplace(kind, read_json(folder / fmt::format("{}.json", kind)));
  const auto rows = read_lines(folder / "invalid.jsonl");
  ASSERT_GE(rows.size(), 2000u);
  for (const auto& row : rows) {
    std::string bytes;
    const auto latin = row.at("bytes").get<std::string>();
    for (std::size_t at = 0; at < latin.size();)
      bytes += static_cast<char>(text::next_code_point(latin, at));
    ASSERT_EQ(tokenizers.at(row.at("kind")).encode(bytes), row.at("ids").get<Ids>()) << row;
    ASSERT_EQ(invalid_utf8(bytes), row.at("count").get<std::size_t>()) << row;
  }
}

TEST_F(TextParity, GgufVocabularyGivesTransformersIdsWhereThereAreNoNumbers) {
  const Tokenizer tokenizer(read_json(folder / "smollm.json"));
  const auto rows = read_lines(folder / "transformers.jsonl");
  ASSERT_GE(rows.size(), 500u);
  for (const auto& row : rows)
    ASSERT_EQ(tokenizer.encode(row.at("text").get<std::string>()), row.at("ids").get<Ids>())
        << row.at("text");
}

TEST_F(TextParity, SentencePieceVocabulariesOfGgufFilesGiveTransformersIds) {
  std::map<std::string, Tokenizer> tokenizers;
  for (const char* name : {"llama", "gemma", "phi3", "t5"})
    tokenizers.emplace(name, text::tokenizer_json_from_gguf(
                                 read_json(folder / fmt::format("gguf-{}.metadata", name))));
  const auto rows = read_lines(folder / "gguf.jsonl");
  ASSERT_GE(rows.size(), 4000u);
  for (const auto& row : rows)
    ASSERT_EQ(tokenizers.at(row.at("name")).encode(row.at("text").get<std::string>(), false),
              row.at("ids").get<Ids>())
        << row;
}

TEST_F(TextParity, BertVocabularyOfAGgufFileIsTheModelsOwn) {
  const auto vocab = read_json(folder / "minilm.json").at("model").at("vocab");
  std::vector<std::string> tokens(vocab.size());
  // As llama.cpp's converter writes them.
  for (const auto& [token, id] : vocab.items())
    tokens.at(id) = token.starts_with('[') && token.ends_with(']') ? token
                    : token.starts_with("##")                      ? token.substr(2)
                                                                   : "\u2581" + token;
  const Tokenizer tokenizer(text::tokenizer_json_from_gguf(
      {{"tokenizer.ggml.model", "bert"}, {"tokenizer.ggml.tokens", tokens}}));
  for (const auto& row : read_lines(folder / "minilm.jsonl"))
    ASSERT_EQ(tokenizer.encode(row.at("text").get<std::string>()), row.at("special").get<Ids>())
        << row.at("text");
}

TEST_F(TextParity, KnownSentenceHasItsKnownIds) {
  const Tokenizer tokenizer(read_json(folder / "smollm.json"));
  EXPECT_EQ(tokenizer.encode("The capital of France is"), (Ids{504, 3575, 282, 4649, 314}));
  EXPECT_EQ(tokenizer.size(), 49152);
}

TEST_F(TextParity, VocabTxtGivesTheTokenizerThatTheModelCameWith) {
  const Tokenizer from_vocab(read_json(folder / "vocab-uncased.json"));
  for (const auto& row : read_lines(folder / "minilm.jsonl"))
    ASSERT_EQ(from_vocab.encode(row.at("text").get<std::string>()), row.at("special").get<Ids>())
        << row.at("text");
}

std::vector<Message> messages_of(const Json& row) {
  std::vector<Message> messages;
  for (const auto& message : row.at("messages"))
    messages.push_back({message.at("role"), message.at("content")});
  return messages;
}

TEST_F(TextParity, EachFamilysChatIsRenderedAsItsTemplateDoesAndAnswersAreMarked) {
  std::map<std::string, Tokenizer> tokenizers;
  std::map<std::string, int> conversations;
  std::map<std::string, int> marked;
  for (const auto& row : read_lines(folder / "chat_families.jsonl")) {
    const std::string kind = row.at("kind");
    const std::string model = row.at("model");
    if (!tokenizers.contains(kind)) tokenizers.emplace(kind, read_json(folder / (kind + ".json")));
    const auto& tokenizer = tokenizers.at(kind);
    const auto chat = ChatTemplate::from_jinja(
        {row.at("jinja"), "", row.at("tokens").get<std::map<std::string, std::string>>()});
    ++conversations[model];
    if (row.at("loses")) {
      EXPECT_THROW(chat.encode(messages_of(row), tokenizer), Rejected)
          << model << " leaves out a part of " << row.at("messages");
      continue;
    }
    const auto conversation = chat.encode(messages_of(row), tokenizer);
    ASSERT_EQ(conversation.tokens, row.at("ids").get<Ids>())
        << model << " " << kind << " " << row.at("messages")
        << tokenizer.decode(conversation.tokens, false);
    if (row.contains("prompt")) {
      ASSERT_EQ(chat.prompt(messages_of(row), tokenizer), row.at("prompt").get<Ids>())
          << model << " " << row.at("messages");
    }
    if (row.at("mask").is_null()) continue;
    marked[model] += std::count(conversation.answer.begin(), conversation.answer.end(), 1) > 0;
    ASSERT_EQ(conversation.answer, row.at("mask").get<std::vector<std::uint8_t>>())
        << model << " " << kind << " " << row.at("messages");
  }
  ASSERT_EQ(conversations.size(), 11u);
  for (const auto& [model, count] : conversations) {
    EXPECT_GE(count, 80) << model;
    EXPECT_GE(marked[model], 40) << model;
  }
}

TEST_F(TextParity, ChatIsRenderedAsTheModelsOwnTemplateDoes) {
  const Tokenizer tokenizer(read_json(folder / "smollm.json"));
  EXPECT_EQ(chat_template, read_text(folder / "chat_template.txt"));
  const auto source = chat_template_of(models / "smollm2-135m");
  EXPECT_EQ(source.jinja, chat_template);
  const auto chat = ChatTemplate::from_jinja(source);
  const auto rows = read_lines(folder / "chat.jsonl");
  ASSERT_GE(rows.size(), 200u);
  for (const auto& row : rows) {
    const auto messages = messages_of(row);
    ASSERT_EQ(chat.encode(messages, tokenizer).tokens, row.at("ids").get<Ids>())
        << row.at("messages");
    ASSERT_EQ(chat.prompt(messages, tokenizer), row.at("prompt").get<Ids>()) << row.at("messages");
  }
}

}  // namespace
}  // namespace attune
