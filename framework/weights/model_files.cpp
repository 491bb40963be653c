#include "weights/model_files.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <sstream>

#include "core/cache.hpp"
#include "core/files.hpp"
#include "core/hash.hpp"
#include "text/convert.hpp"
#include "weights/chat_template_files.hpp"
#include "weights/gguf.hpp"
#include "weights/json_file.hpp"
#include "weights/name_map.hpp"
#include "weights/safetensors.hpp"
#include "weights/special_tokens.hpp"
#include "weights/tokenizer_files.hpp"
#include "weights/weight_files.hpp"

namespace attune {
namespace fs = std::filesystem;
using nlohmann::json;
using weights::read_json;
namespace {

json read_json_if_present(const fs::path& path) {
  return fs::exists(path) ? read_json(path) : json::object();
}

/// The value under a key when it is there and a text; "" otherwise.
std::string text_or_empty(const json& object, const std::string& key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

/// The tokenizer that `read` gives, or why there is none.
template <class Read>
void set_tokenizer(ModelFiles& model, Read read) {
  try {
    model.tokenizer = read();
  } catch (const Error& problem) {
    model.tokenizer_problem = problem.what();
  }
}

ModelFiles open_gguf(const fs::path& path) {
  auto file = std::make_unique<GgufFile>(path);
  ModelFiles model;
  model.path = path;
  model.config = huggingface_config(*file);
  const auto vocabulary = text_or_empty(file->metadata(), "tokenizer.ggml.model");
  if (!vocabulary.empty() && vocabulary != "no_vocab")
    set_tokenizer(model, [&] { return text::tokenizer_json_from_gguf(file->metadata()); });
  model.chat_template = text_or_empty(file->metadata(), "tokenizer.chat_template");
  model.licence = text_or_empty(file->metadata(), "general.license");
  model.generation = generation_config_from_gguf(file->metadata());
  model.tokenizer_config = special_tokens_of_gguf(file->metadata());
  model.weight_files = file->files();
  model.weights = huggingface_weights(std::move(file));
  return model;
}

/// "license: apache-2.0" between the first two lines "---" of README.md; where that says "other",
/// what "license_name" says.
std::string open_licence(const fs::path& folder) {
  const auto path = folder / "README.md";
  if (!fs::exists(path)) return "";
  std::istringstream card(read_lines(path));
  std::string line;
  std::string licence;
  std::string name;
  constexpr std::string_view blank = " \t\r\"'";
  if (!std::getline(card, line) || !line.starts_with("---")) return "";
  while (std::getline(card, line) && !line.starts_with("---")) {
    const auto colon = line.find(':');
    auto* value = line.starts_with("license:")        ? &licence
                  : line.starts_with("license_name:") ? &name
                                                      : nullptr;
    if (!value) continue;
    line.erase(0, std::min(line.find_first_not_of(blank, colon + 1), line.size()));
    *value = line.erase(line.find_last_not_of(blank) + 1);
  }
  return licence == "other" && !name.empty() ? name : licence;
}

ModelFiles open_folder(const fs::path& folder) {
  if (!fs::exists(folder / "config.json")) return open_gguf(weights::only_gguf(folder));
  ModelFiles model;
  model.path = folder;
  model.config = read_json(folder / "config.json");
  const auto preprocessor = read_json_if_present(folder / "preprocessor_config.json");
  // what pictures are scaled by belongs to the weights
  for (const char* key : {"image_mean", "image_std"})
    if (preprocessor.contains(key) && !model.config.contains(key))
      model.config[key] = preprocessor[key];
  model.weights = weights::open_folder_weights(folder, model.config, model.weight_files);
  model.config.erase("transformers_weights");  // an export has model.safetensors
  std::map<std::string, std::string> special_tokens;
  set_tokenizer(model, [&] {
    auto tokenizer = read_tokenizer(folder);
    special_tokens = std::move(tokenizer.special_tokens);
    return std::move(tokenizer.json);
  });
  model.chat_template = chat_templates_in(folder).jinja;
  model.generation = read_json_if_present(folder / "generation_config.json");
  model.tokenizer_config = with_special_tokens(
      read_json_if_present(folder / "tokenizer_config.json"), special_tokens, model.tokenizer);
  model.licence = open_licence(folder);
  return model;
}

}  // namespace

ModelFiles ModelFiles::open(const fs::path& path) {
  if (!fs::exists(path))
    fail(
        "{}: there is no such file or folder; expected a Hugging Face model folder or a .gguf file",
        path.string());
  if (fs::is_directory(path)) return open_folder(path);
  if (path.extension() == ".gguf") return open_gguf(path);
  fail(
      "{}: is not a model; expected a Hugging Face model folder (for a .safetensors file: the "
      "folder it is in) or a .gguf file",
      path.string());
}

const json& tokenizer_of(const ModelFiles& files) {
  if (!files.tokenizer_problem.empty()) fail("{}", files.tokenizer_problem);
  if (files.tokenizer.is_null())
    fail("{}: has no tokenizer; put the tokenizer.json of this model beside its weights",
         files.path.string());
  return files.tokenizer;
}

void check_tokenizer(const fs::path& model, std::int64_t tokenizer_size, std::int64_t vocabulary) {
  if (tokenizer_size > vocabulary)
    fail(
        "{}: its tokenizer has {} tokens, but its token embedding has only {} rows; use the "
        "tokenizer that the model was trained with",
        model.string(), tokenizer_size, vocabulary);
}

std::string weights_sha256(const ModelFiles& files) {
  if (files.weight_files.size() == 1) return cached_sha256_of_file(files.weight_files.front());
  Sha256 sum;
  for (const auto& file : files.weight_files)
    sum.add(fmt::format("{}  {}\n", cached_sha256_of_file(file), file.filename().string()));
  return sum.hex();
}

}  // namespace attune
