#include "weights/model_files.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <sstream>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "core/names.hpp"
#include "text/convert.hpp"
#include "weights/gguf.hpp"
#include "weights/json_file.hpp"
#include "weights/name_map.hpp"
#include "weights/safetensors.hpp"
#include "weights/special_tokens.hpp"

namespace attune {
namespace fs = std::filesystem;
using nlohmann::json;
using weights::read_json;
namespace {

json read_json_if_present(const fs::path& path) { return fs::exists(path) ? read_json(path) : json::object(); }

/// The value under a key when it is there and a text; "" otherwise.
std::string text_or_empty(const json& object, const std::string& key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

std::vector<fs::path> files_ending(const fs::path& folder, const std::string& extension) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == extension) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

std::string names_of(const std::vector<fs::path>& files) {
  std::vector<std::string> names;
  for (const auto& file : files) names.push_back(file.filename().string());
  return joined(names);
}

ModelFiles open_gguf(const fs::path& path) {
  auto file = std::make_unique<GgufFile>(path);
  ModelFiles model;
  model.path = path;
  model.config = huggingface_config(*file);
  model.tokenizer = text::tokenizer_json_from_gguf(file->metadata());
  model.chat_template = text_or_empty(file->metadata(), "tokenizer.chat_template");
  model.licence = text_or_empty(file->metadata(), "general.license");
  model.generation = generation_config_from_gguf(file->metadata());
  model.tokenizer_config = tokenizer_config_from_gguf(file->metadata());
  model.weights = huggingface_weights(std::move(file));
  model.weight_files = {path};
  return model;
}

void open_weights(const fs::path& folder, ModelFiles& model) {
  if (const auto index = folder / "model.safetensors.index.json"; fs::exists(index)) {
    model.weights = open_safetensors_index(index, &model.weight_files);
    return;
  }
  const auto files = files_ending(folder, ".safetensors");
  if (files.empty()) {
    const auto* pickled = fs::exists(folder / "pytorch_model.bin") ? " (pytorch_model.bin is not read: save the model again with save_pretrained)" : "";
    fail("{}: holds no weights; expected model.safetensors, or model.safetensors.index.json and its files{}", folder.string(), pickled);
  }
  if (files.size() > 1) fail("{}: holds several weight files ({}) but no model.safetensors.index.json that says what is in which", folder.string(), names_of(files));
  model.weights = open_safetensors(files.front());
  model.weight_files = files;
}

json open_tokenizer(const fs::path& folder, const json& tokenizer_config) {
  if (const auto path = folder / "tokenizer.json"; fs::exists(path)) return read_json(path);
  if (const auto path = folder / "vocab.txt"; fs::exists(path)) {
    const auto lowercase = tokenizer_config.find("do_lower_case");
    return text::tokenizer_json_from_vocab(read_text(path), lowercase == tokenizer_config.end() || *lowercase != false);
  }
  return nullptr;
}

/// chat_template.jinja, or "chat_template" of tokenizer_config.json: a text, or a list of named ones of which "default" is meant.
std::string open_chat_template(const fs::path& folder, const json& tokenizer_config) {
  if (const auto path = folder / "chat_template.jinja"; fs::exists(path)) return read_text(path);
  const auto found = tokenizer_config.find("chat_template");
  if (found != tokenizer_config.end() && found->is_array())
    for (const auto& named : *found)
      if (text_or_empty(named, "name") == "default") return text_or_empty(named, "template");
  return text_or_empty(tokenizer_config, "chat_template");
}

/// "license: apache-2.0" between the first two lines "---" of README.md; where that says "other", what "license_name" says.
std::string open_licence(const fs::path& folder) {
  const auto path = folder / "README.md";
  if (!fs::exists(path)) return "";
  std::istringstream card(read_text(path));
  std::string line, licence, name;
  constexpr std::string_view blank = " \t\r\"'";
  if (!std::getline(card, line) || !line.starts_with("---")) return "";
  while (std::getline(card, line) && !line.starts_with("---")) {
    const auto colon = line.find(':');
    auto* value = line.starts_with("license:") ? &licence : line.starts_with("license_name:") ? &name : nullptr;
    if (!value) continue;
    line.erase(0, std::min(line.find_first_not_of(blank, colon + 1), line.size()));
    *value = line.erase(line.find_last_not_of(blank) + 1);
  }
  return licence == "other" && !name.empty() ? name : licence;
}

ModelFiles open_folder(const fs::path& folder) {
  if (!fs::exists(folder / "config.json")) {
    const auto ggufs = files_ending(folder, ".gguf");
    if (ggufs.size() == 1) return open_gguf(ggufs.front());
    if (ggufs.size() > 1) fail("{}: holds several GGUF files ({}); name the one you mean", folder.string(), names_of(ggufs));
    fail("{}: holds no config.json and no .gguf file; expected a Hugging Face model folder (config.json, *.safetensors, tokenizer.json){}", folder.string(),
         fs::exists(folder / "adapter_config.json") ? ", but this is an adapter: name the model it was made for" : "");
  }
  const auto tokenizer_config = read_json_if_present(folder / "tokenizer_config.json");
  ModelFiles model;
  model.path = folder;
  model.config = read_json(folder / "config.json");
  const auto preprocessor = read_json_if_present(folder / "preprocessor_config.json");
  for (const char* key : {"image_mean", "image_std"})  // what pictures are scaled by belongs to the weights
    if (preprocessor.contains(key) && !model.config.contains(key)) model.config[key] = preprocessor[key];
  open_weights(folder, model);
  model.tokenizer = open_tokenizer(folder, tokenizer_config);
  model.chat_template = open_chat_template(folder, tokenizer_config);
  model.generation = read_json_if_present(folder / "generation_config.json");
  model.tokenizer_config = with_special_tokens_map(tokenizer_config, read_json_if_present(folder / "special_tokens_map.json"));
  model.licence = open_licence(folder);
  return model;
}

}  // namespace

ModelFiles ModelFiles::open(const fs::path& path) {
  if (!fs::exists(path)) fail("{}: there is no such file or folder; expected a Hugging Face model folder or a .gguf file", path.string());
  if (fs::is_directory(path)) return open_folder(path);
  if (path.extension() == ".gguf") return open_gguf(path);
  fail("{}: is not a model; expected a Hugging Face model folder (for a .safetensors file: the folder it is in) or a .gguf file", path.string());
}

void check_tokenizer(const fs::path& model, std::int64_t tokenizer_size, std::int64_t vocabulary) {
  if (tokenizer_size > vocabulary)
    fail("{}: its tokenizer has {} tokens but its token embedding has only {} rows; they do not belong together, use the tokenizer the model was trained with",
         model.string(), tokenizer_size, vocabulary);
}

std::string weights_sha256(const ModelFiles& files) {
  if (files.weight_files.size() == 1) return sha256_of_file(files.weight_files.front());
  Sha256 sum;
  for (const auto& file : files.weight_files) sum.add(fmt::format("{}  {}\n", sha256_of_file(file), file.filename().string()));
  return sum.hex();
}

}  // namespace attune
