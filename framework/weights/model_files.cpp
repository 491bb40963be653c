#include "weights/model_files.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <optional>
#include <sstream>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "text/convert.hpp"
#include "weights/gguf.hpp"
#include "weights/json_file.hpp"
#include "weights/name_map.hpp"
#include "weights/safetensors.hpp"
#include "weights/weight_files.hpp"

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

ModelFiles open_gguf(const fs::path& path) {
  auto file = std::make_unique<GgufFile>(path);
  ModelFiles model;
  model.path = path;
  model.config = huggingface_config(*file);
  const auto vocabulary = text_or_empty(file->metadata(), "tokenizer.ggml.model");
  if (!vocabulary.empty() && vocabulary != "no_vocab")
    model.tokenizer = text::tokenizer_json_from_gguf(file->metadata());
  model.chat_template = text_or_empty(file->metadata(), "tokenizer.chat_template");
  model.licence = text_or_empty(file->metadata(), "general.license");
  model.generation = json::object();
  for (const auto& [ours, theirs] : {std::pair("bos_token_id", "bos"), std::pair("eos_token_id", "eos"), std::pair("pad_token_id", "padding")})
    if (const auto id = file->metadata().find(fmt::format("tokenizer.ggml.{}_token_id", theirs)); id != file->metadata().end() && id->is_number_unsigned())
      model.generation[ours] = *id;
  model.weight_files = file->files();
  model.weights = huggingface_weights(std::move(file));
  return model;
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
  if (!fs::exists(folder / "config.json")) return open_gguf(weights::only_gguf(folder));
  const auto tokenizer_config = read_json_if_present(folder / "tokenizer_config.json");
  ModelFiles model;
  model.path = folder;
  model.config = read_json(folder / "config.json");
  const auto preprocessor = read_json_if_present(folder / "preprocessor_config.json");
  for (const char* key : {"image_mean", "image_std"})  // what pictures are scaled by belongs to the weights
    if (preprocessor.contains(key) && !model.config.contains(key)) model.config[key] = preprocessor[key];
  model.weights = weights::open_folder_weights(folder, model.config, model.weight_files);
  model.config.erase("transformers_weights");  // an export has model.safetensors
  model.tokenizer = open_tokenizer(folder, tokenizer_config);
  model.chat_template = open_chat_template(folder, tokenizer_config);
  model.generation = read_json_if_present(folder / "generation_config.json");
  model.licence = open_licence(folder);
  return model;
}

/// Calls visit(text, id) for every token of a tokenizer.json, added ones last.
template <class Visit>
void each_token(const json& tokenizer, Visit visit) {
  const auto model = tokenizer.find("model");
  if (model != tokenizer.end() && model->is_object() && model->contains("vocab")) {
    const auto& vocabulary = (*model)["vocab"];
    std::int64_t row = 0;
    for (const auto& [text, id] : vocabulary.items()) {
      if (vocabulary.is_object() && id.is_number_integer()) visit(text, id.template get<std::int64_t>());
      if (vocabulary.is_array()) visit(id.is_array() && !id.empty() && id[0].is_string() ? id[0].template get<std::string>() : "", row++);
    }
  }
  const auto added = tokenizer.find("added_tokens");
  if (added == tokenizer.end() || !added->is_array()) return;
  for (const auto& token : *added)
    if (token.is_object() && token.contains("id") && token["id"].is_number_integer()) visit(text_or_empty(token, "content"), token["id"].template get<std::int64_t>());
}

std::optional<std::string> token_text(const json& tokenizer, std::int64_t id) {
  std::optional<std::string> found;
  each_token(tokenizer, [&](const std::string& text, std::int64_t candidate) {
    if (candidate == id) found = text;
  });
  return found;
}

/// The id of a special token: in generation_config.json, else in config.json; the first where there are several.
std::optional<std::int64_t> special_id(const json& config, const json& generation, const std::string& key) {
  for (const auto* source : {&generation, &config}) {
    auto found = source->find(key);
    if (found == source->end()) continue;
    const auto& id = found->is_array() && !found->empty() ? found->front() : *found;
    if (id.is_number_integer()) return id.get<std::int64_t>();
  }
  return std::nullopt;
}

/// What transformers' AutoTokenizer needs beside tokenizer.json.
json make_tokenizer_config(const json& config, const json& tokenizer, const std::string& chat_template, const json& generation) {
  json result = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  if (const auto context = config.find("max_position_embeddings"); context != config.end()) result["model_max_length"] = *context;
  for (const auto* name : {"bos", "eos", "pad"})
    if (const auto id = special_id(config, generation, fmt::format("{}_token_id", name)))
      if (const auto text = token_text(tokenizer, *id)) result[fmt::format("{}_token", name)] = *text;
  if (const auto model = tokenizer.find("model"); model != tokenizer.end())
    if (const auto unknown = text_or_empty(*model, "unk_token"); !unknown.empty()) result["unk_token"] = unknown;
  // The encoder's own marks are known by their usual names alone.
  if (const auto added = tokenizer.find("added_tokens"); added != tokenizer.end() && added->is_array())
    for (const auto& token : *added)
      for (const auto& [key, mark] : {std::pair("cls_token", "[CLS]"), std::pair("sep_token", "[SEP]"), std::pair("mask_token", "[MASK]")})
        if (text_or_empty(token, "content") == mark) result[key] = mark;
  result["model_input_names"] = {"input_ids", "attention_mask"};
  if (config.contains("type_vocab_size")) result["model_input_names"].push_back("token_type_ids");
  if (!chat_template.empty()) result["chat_template"] = chat_template;
  return result;
}

/// Invalid UTF-8 is written as U+FFFD.
void write_json(const fs::path& path, const json& value) { write_text(path, value.dump(2, ' ', false, json::error_handler_t::replace) + "\n"); }

}  // namespace

ModelFiles ModelFiles::open(const fs::path& path) {
  if (!fs::exists(path)) fail("{}: there is no such file or folder; expected a Hugging Face model folder or a .gguf file", path.string());
  if (fs::is_directory(path)) return open_folder(path);
  if (path.extension() == ".gguf") return open_gguf(path);
  fail("{}: is not a model; expected a Hugging Face model folder (for a .safetensors file: the folder it is in) or a .gguf file", path.string());
}

std::int64_t tokenizer_size(const json& tokenizer) {
  std::int64_t size = 0;
  each_token(tokenizer, [&](const std::string&, std::int64_t id) { size = std::max(size, id + 1); });
  return size;
}

void check_tokenizer(const fs::path& model, std::int64_t tokenizer_size, std::int64_t vocabulary) {
  if (tokenizer_size > vocabulary)
    fail("{}: its tokenizer has {} tokens but its token embedding has only {} rows; they do not belong together, use the tokenizer the model was trained with",
         model.string(), tokenizer_size, vocabulary);
}

void export_model_folder(const fs::path& folder, const json& config, const json& tokenizer, const std::string& chat_template,
                         const std::vector<std::pair<std::string, at::Tensor>>& tensors, const json& generation) {
  write_atomically(place_of_new_folder(folder), [&](const fs::path& temporary) {
    fs::create_directory(temporary);
    write_json(temporary / "config.json", config);
    write_safetensors(temporary / "model.safetensors", tensors);
    write_json(temporary / "generation_config.json", generation);
    if (tokenizer.is_null()) return;
    write_json(temporary / "tokenizer.json", tokenizer);
    write_json(temporary / "tokenizer_config.json", make_tokenizer_config(config, tokenizer, chat_template, generation));
  });
}

std::string weights_sha256(const ModelFiles& files) {
  if (files.weight_files.size() == 1) return sha256_of_file(files.weight_files.front());
  Sha256 sum;
  for (const auto& file : files.weight_files) sum.add(fmt::format("{}  {}\n", sha256_of_file(file), file.filename().string()));
  return sum.hex();
}

}  // namespace attune
