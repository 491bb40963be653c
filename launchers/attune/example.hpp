// What a new plugin is tried with: a model of random weights and some texts, made on the spot, so
// that its example trains in seconds and needs nothing from elsewhere.
#pragma once
#include <filesystem>
#include <string>

namespace attune::program {

struct Example {
  std::string model_type;  // of the model, whose layers and files are those of a Llama
  std::string kind;        // of the data
};

/// model/ (two blocks, and a tokenizer of bytes), texts.jsonl, and a recipe for them, texts.toml.
void write_example(const std::filesystem::path& folder, const Example& example);

}  // namespace attune::program
