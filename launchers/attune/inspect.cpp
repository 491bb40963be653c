// attune inspect: what a file is.
#include <filesystem>
#include <fstream>
#include <iostream>

#include "command.hpp"
#include "config/document.hpp"
#include "data/card.hpp"
#include "ranks.hpp"
#include "registry/loader.hpp"
#include "weights/describe.hpp"
#include "weights/json_file.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;
namespace fs = std::filesystem;

bool starts_with(const fs::path& path, std::string_view magic) {
  std::string head(magic.size(), '\0');
  std::ifstream(path, std::ios::binary).read(head.data(), static_cast<std::streamsize>(head.size()));
  return head == magic;
}

/// Whether a plugin here runs this kind of model.
std::string support(const ModelFiles& files) {
  Registry registry;
  load_plugins(registry, default_plugin_places());
  const auto type = files.config.value("model_type", "");
  for (const auto& name : registry.names(Kind::model))
    if (name == type) return "supported by the plugin '" + name + "'";
  return "not supported: no plugin here runs models of type '" + type + "'";
}

/// A tokenizer.json, or that of a model; null when there is none.
nlohmann::json tokenizer_at(const fs::path& path) {
  return path.extension() == ".json" ? weights::read_json(path) : ModelFiles::open(path).tokenizer;
}

/// Where the recipe's tokenizer may lie: the recipe's paths are relative to itself, and where it lay is not noted; the data file's own
/// place tells, unless it was moved. Else from the folder we are in.
std::vector<fs::path> tokenizer_places(const DataFile& file) {
  toml::table recipe;
  try {
    recipe = toml::parse(file.recipe());
  } catch (const toml::parse_error&) {
    return {};  // not written by `attune prepare`
  }
  const fs::path named = recipe["tokenizer"].value_or(std::string()), output = recipe["output"].value_or(std::string());
  if (named.empty()) return {};
  if (named.is_absolute()) return {named};
  fs::path inner;
  for (const auto& part : named)
    if (part != "..") inner /= part;
  return {(file.path().parent_path() / named.lexically_relative(output.parent_path())).lexically_normal(), named, inner};
}

Decode decoder(const nlohmann::json& tokenizer) {
  return [tokenizer = std::make_shared<Tokenizer>(tokenizer)](const std::vector<std::int32_t>& ids) { return tokenizer->decode(ids, false); };
}

/// Null, with a word on why, when the tokenizer that the data were made with is not found.
Decode find_decoder(const DataFile& file, const std::string& given) {
  if (file.tokenizer_sha256().empty()) return {};
  if (!given.empty()) {
    const auto tokenizer = tokenizer_at(given);
    if (tokenizer.is_null()) fail("{}: there is no tokenizer in it", given);
    if (tokenizer_sha256(tokenizer) != file.tokenizer_sha256()) fail("{}: is not the tokenizer that {} was made with (its sha256 differs)", given, file.path().string());
    return decoder(tokenizer);
  }
  for (const auto& place : tokenizer_places(file)) {
    if (!fs::exists(place)) continue;
    const auto tokenizer = tokenizer_at(place);
    if (!tokenizer.is_null() && tokenizer_sha256(tokenizer) == file.tokenizer_sha256()) return decoder(tokenizer);
  }
  std::cout << "texts are left out: the tokenizer that the data were made with is not where the recipe says; name it with --tokenizer PATH\n";
  return {};
}

void inspect_data(const fs::path& path, const std::string& tokenizer) {
  const auto file = DataFile::open(path);
  for (const auto& split : file.splits()) file.split(split).verify();
  std::cout << data_card(file) << "the content is what was written: every split's SHA-256 holds\n" << std::flush;
  const auto decode = find_decoder(file, tokenizer);
  std::cout << sample_lines(file, decode);
}

void inspect(const fs::path& path, const std::string& tokenizer) {
  if (!fs::exists(path)) fail("{}: there is no such file or folder", path.string());
  if (fs::is_directory(path) || starts_with(path, "GGUF")) {
    const auto files = ModelFiles::open(path);
    std::cout << describe_model(files) << support(files) << "\n";
  } else if (starts_with(path, "\x89HDF\r\n\x1a\n")) {
    inspect_data(path, tokenizer);
  } else {
    fail("{}: is neither a model (a Hugging Face folder or a .gguf file) nor a data file made by `attune prepare`", path.string());
  }
}

int run(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("file", options::value<std::string>()->required(), "model or data file")(
      "tokenizer", options::value<std::string>()->default_value("", ""), "what the data were made with: a model folder, a tokenizer.json or a .gguf");
  const auto values = parse(inspect_command, arguments, description, {{"file", 1}});
  if (!values) return static_cast<int>(ExitCode::done);
  return on_ranks([&](const Comm&) {
    inspect((*values)["file"].as<std::string>(), (*values)["tokenizer"].as<std::string>());
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace

const Command inspect_command{"inspect", "MODEL|DATA.h5 [--tokenizer PATH]", "says what a model or data file holds, and verifies data files", run};

}  // namespace attune::program
