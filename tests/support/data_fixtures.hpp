// A small data set to prepare: a handmade tokenizer, sources, and a dataset plugin of the test's
// own.
#pragma once
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <attune/dataset.hpp>
#include <attune/registry.hpp>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "config/document.hpp"
#include "core/files.hpp"
#include "data/store.hpp"
#include "prepare/prepare.hpp"

namespace attune::fixtures {

/// Every word of one letter is a token; all others are [UNK].
inline nlohmann::json tokenizer_json() {
  nlohmann::json vocabulary{{"[UNK]", 0}, {"[CLS]", 1}, {"[SEP]", 2}};
  for (char letter = 'a'; letter <= 'z'; ++letter)
    vocabulary[std::string(1, letter)] = 3 + letter - 'a';
  const auto added = [](int id, const char* content) {
    return nlohmann::json{{"id", id},        {"content", content}, {"single_word", false},
                          {"lstrip", false}, {"rstrip", false},    {"normalized", false},
                          {"special", true}};
  };
  return {{"version", "1.0"},
          {"added_tokens", {added(0, "[UNK]"), added(1, "[CLS]"), added(2, "[SEP]")}},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
          {"post_processor",
           {{"type", "BertProcessing"}, {"sep", {"[SEP]", 2}}, {"cls", {"[CLS]", 1}}}},
          {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
          {"model",
           {{"type", "WordPiece"},
            {"unk_token", "[UNK]"},
            {"continuing_subword_prefix", "##"},
            {"max_input_chars_per_word", 100},
            {"vocab", vocabulary}}}};
}

/// tokens (ragged), label (scalar), shape (uint8 [2, 3]). Rejects texts that hold "bad"; dies
/// without a word at "die".
class Letters final : public Dataset {
 public:
  struct Options {
    std::int64_t max_length = 0;
    static void describe(Schema<Options>& s) {
      s.key("max_length", &Options::max_length, "longest sample").at_least(0);
    }
  };
  explicit Letters(Options options) : options_(options) {}

  Sample encode(const Record& record, const EncodeContext& context) const override {
    const auto& text = record.field("text");
    if (text.find("bad") != std::string::npos) throw Rejected("bad text");
    if (text.find("die") != std::string::npos) std::raise(SIGKILL);
    auto ids = context.tokenizer.encode(text);
    if (options_.max_length > 0 && std::ssize(ids) > options_.max_length)
      throw Rejected("too long");
    at::Tensor tokens = at::empty({std::ssize(ids)}, at::kInt);
    std::copy(ids.begin(), ids.end(), tokens.data_ptr<std::int32_t>());
    const auto label =
        std::find(context.labels.begin(), context.labels.end(), record.field("label")) -
        context.labels.begin();
    return {{"tokens", tokens},
            {"label", at::full({}, label, at::kLong)},
            {"grid", at::full({2, 3}, label, at::kByte)}};
  }

  Batch collate(const std::vector<Sample>& samples) const override {
    std::vector<at::Tensor> tokens;
    for (const auto& sample : samples) tokens.push_back(sample.at("tokens"));
    return pack(tokens);
  }

 private:
  Options options_;
};

inline Registry registry() {
  Registry registry;
  registry.dataset<Letters>("letters");
  return registry;
}

/// "a b c ..." of growing, uneven lengths.
inline std::string letters(int i) {
  std::string text;
  for (int j = 0; j <= (i * 7) % 23; ++j)
    text += std::string(j ? " " : "") + static_cast<char>('a' + (i + j * j) % 26);
  return text + " " + std::string(1, static_cast<char>('a' + i / 26 % 26)) + " " +
         std::string(1, static_cast<char>('a' + i / 676));
}

/// A folder with tokenizer.json, data.csv of `rows` rows, and recipe.toml: its head, then `more`.
inline void write_recipe(const std::filesystem::path& folder, int rows,
                         const std::string& more = "[split]\nvalidation = 0.2\nstratify = true\n",
                         const std::string& head = "") {
  write_text(folder / "tokenizer.json", tokenizer_json().dump());
  std::string table = "text,label\n";
  for (int i = 0; i < rows; ++i) table += letters(i) + "," + std::to_string(i % 3 * 5) + "\n";
  write_text(folder / "data.csv", table);
  write_text(folder / "recipe.toml",
             "name = \"letters\"\nkind = \"letters\"\nlicence = \"CC0-1.0\"\noutput = "
             "\"data.h5\"\ntokenizer = \"tokenizer.json\"\n" +
                 head + "[[source]]\npath = \"data.csv\"\n" + more);
}

inline PrepareReport prepare_folder(const std::filesystem::path& folder, const Comm& comm = {}) {
  const auto plugins = registry();
  return prepare(Recipe::parse(config::Document::parse(folder / "recipe.toml"), plugins), plugins,
                 comm);
}

}  // namespace attune::fixtures
