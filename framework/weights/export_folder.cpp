#include "weights/export_folder.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

#include "core/files.hpp"
#include "weights/json_file.hpp"
#include "weights/model_files.hpp"
#include "weights/safetensors.hpp"
#include "weights/special_tokens.hpp"

namespace attune {
namespace fs = std::filesystem;
using nlohmann::json;
using weights::read_json;
namespace {

/// Files that training does not change, copied byte for byte. Not among them: weights, their index,
/// config.json and the model card.
constexpr const char* kept_files[] = {"generation_config.json",
                                      "tokenizer.json",
                                      "tokenizer_config.json",
                                      "special_tokens_map.json",
                                      "added_tokens.json",
                                      "vocab.txt",
                                      "vocab.json",
                                      "vocab.bpe",
                                      "merges.txt",
                                      "bpe.codes",
                                      "tekken.json",
                                      "*.tiktoken",
                                      "tokenizer.model*",
                                      "spiece.model",
                                      "sentencepiece.bpe.model",
                                      "chat_template.jinja",
                                      "chat_template.json",
                                      "additional_chat_templates/*.jinja",
                                      "preprocessor_config.json",
                                      "processor_config.json",
                                      "LICEN[CS]E*",
                                      "NOTICE*",
                                      "USE_POLICY*"};

bool is_kept(const std::string& name) {
  return std::ranges::any_of(kept_files, [&](const char* pattern) {
    return fnmatch(pattern, name.c_str(), FNM_PATHNAME) == 0;
  });
}

void copy_to_disk(const fs::path& from, const fs::path& to) {
  const auto file = MappedFile::open(from);
  fs::create_directories(to.parent_path());
  write_bytes(to, std::span(file->data(), file->size()));
}

/// Also from the folders directly in it. Links are followed: the files of a download cache are
/// links.
void copy_kept_files(const fs::path& from, const fs::path& to) {
  const auto copy_if_kept = [&](const fs::path& file) {
    const auto name = file.lexically_relative(from);
    if (fs::is_regular_file(file) && is_kept(name.string())) copy_to_disk(file, to / name);
  };
  for (const auto& entry : fs::directory_iterator(from)) {
    if (!fs::is_directory(entry.path())) {
      copy_if_kept(entry.path());
      continue;
    }
    for (const auto& inner : fs::directory_iterator(entry.path())) copy_if_kept(inner.path());
  }
}

/// Invalid UTF-8 is written as U+FFFD.
void write_json(const fs::path& path, const json& value) {
  write_text(path, value.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
}

using Tensors = std::vector<TensorToWrite>;

/// In the order of the tensors.
std::vector<Tensors> in_files(const Tensors& tensors, std::uint64_t largest) {
  std::vector<Tensors> files(1);
  std::uint64_t bytes = 0;
  for (const auto& tensor : tensors) {
    if (!files.back().empty() && bytes + tensor.bytes() > largest) {
      files.emplace_back();
      bytes = 0;
    }
    files.back().push_back(tensor);
    bytes += tensor.bytes();
  }
  return files;
}

/// Names and index as huggingface_hub has them.
void write_weights(const fs::path& folder, const Tensors& tensors, std::uint64_t largest_file) {
  const auto files = in_files(tensors, largest_file);
  if (files.size() == 1) return stream_safetensors(folder / "model.safetensors", tensors);
  std::uint64_t all = 0;
  auto places = json::object();
  for (std::size_t i = 0; i < files.size(); ++i) {
    const auto name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, files.size());
    stream_safetensors(folder / name, files[i]);
    for (const auto& tensor : files[i]) {
      places[tensor.name] = name;
      all += tensor.bytes();
    }
  }
  write_json(folder / "model.safetensors.index.json",
             {{"metadata", {{"total_size", all}}}, {"weight_map", places}});
}

/// As transformers names it; "" for a type that is not one of a model's.
std::string type_name(at::ScalarType type) {
  switch (type) {
    case at::kDouble: return "float64";
    case at::kFloat: return "float32";
    case at::kHalf: return "float16";
    case at::kBFloat16: return "bfloat16";
    default: return "";
  }
}

/// transformers loads weights in the type that config.json names, without a word where they are
/// stored in another. A name that is true of some of the tensors stays (old files hold a few in
/// float32 beside float16); else it becomes the type that loses none of them anything.
void name_stored_type(json& config, const Tensors& tensors) {
  std::vector<at::ScalarType> stored;
  for (const auto& tensor : tensors)
    if (at::isFloatingType(tensor.dtype)) stored.push_back(tensor.dtype);
  if (stored.empty()) return;
  auto widest = stored.front();
  for (const auto type : stored) widest = c10::promoteTypes(widest, type);
  for (const char* key : {"dtype", "torch_dtype"}) {
    const auto named = config.find(key);
    if (named == config.end()) continue;
    const bool is_true =
        std::ranges::any_of(stored, [&](const auto type) { return *named == type_name(type); });
    if (!is_true) *named = type_name(widest);
  }
}

/// Whether `config` says what the file says. The scaling of pictures is added to it from
/// preprocessor_config.json when a folder is opened.
bool is_unchanged(json config, const json& file) {
  for (const char* key : {"image_mean", "image_std"})
    if (!file.contains(key)) config.erase(key);
  return config == file;
}

void write_config(const fs::path& to, const fs::path& source, const json& config) {
  if (fs::exists(source) && is_unchanged(config, read_json(source)))
    copy_to_disk(source, to);
  else
    write_json(to, config);
}

/// The longest text that a model takes, in tokens; null when config.json does not say. RoBERTa's
/// positions begin after the padding token's id.
json longest_text(const json& config) {
  for (const char* key : {"max_position_embeddings", "n_positions"}) {
    const auto positions = config.find(key);
    if (positions == config.end() || !positions->is_number_integer()) continue;
    const bool is_offset = config.value("model_type", json()) == "roberta";
    const auto padding = token_ids(config, "pad_token_id");
    return positions->get<std::int64_t>() -
           (is_offset ? (padding.empty() ? 1 : padding.front()) + 1 : 0);
  }
  return nullptr;
}

/// Special tokens by their ids in generation_config.json or config.json, and those that encoders
/// know by their names alone.
void add_special_tokens(json& result, const json& config, const ModelFiles& source) {
  const auto add = [&](const std::string& key, const std::string& text) {
    if (!text.empty() && special_token(result, key).empty()) result[key] = text;
  };
  for (const auto* name : {"bos", "eos", "pad"})
    for (const auto* ids : {&source.generation, &config})
      for (const auto id : token_ids(*ids, fmt::format("{}_token_id", name)))
        add(fmt::format("{}_token", name), token_text(source.tokenizer, id).value_or(""));
  const auto model = source.tokenizer.find("model");
  if (model != source.tokenizer.end() && model->is_object())
    add("unk_token", special_token(*model, "unk_token"));
  for (const auto& [key, mark] : {std::pair("cls_token", "[CLS]"), std::pair("sep_token", "[SEP]"),
                                  std::pair("mask_token", "[MASK]")})
    if (has_token(source.tokenizer, mark)) add(key, mark);
}

/// What AutoTokenizer needs beside tokenizer.json.
json make_tokenizer_config(const json& config, const ModelFiles& source) {
  json result = source.tokenizer_config.is_object() ? source.tokenizer_config : json::object();
  result["tokenizer_class"] = "PreTrainedTokenizerFast";
  result["clean_up_tokenization_spaces"] = false;
  if (const auto longest = longest_text(config); !longest.is_null())
    result["model_max_length"] = longest;
  add_special_tokens(result, config, source);
  result["model_input_names"] = {"input_ids", "attention_mask"};
  if (config.contains("type_vocab_size")) result["model_input_names"].push_back("token_type_ids");
  if (!source.chat_template.empty()) result["chat_template"] = source.chat_template;
  return result;
}

/// The model card says what the source's said of the licence, and nothing of how good the source
/// was.
void add_card(const fs::path& to, const std::string& licence) {
  if (!licence.empty())
    write_text(to / "README.md", fmt::format("---\nlicense: {}\n---\n", licence));
}

/// A folder with tokenizer_config.json is complete as it is, also without a tokenizer.json.
void add_tokenizer(const fs::path& to, const json& config, const ModelFiles& source) {
  if (source.tokenizer.is_null() || fs::exists(to / "tokenizer_config.json")) return;
  // The class named below takes tokenizer.json as it is; the source's model type may have had
  // AutoTokenizer, and so the training, read it otherwise.
  const auto file = to / "tokenizer.json";
  if (!fs::exists(file) || read_json(file) != source.tokenizer) write_json(file, source.tokenizer);
  auto made = make_tokenizer_config(config, source);
  if (fs::exists(to / "chat_template.jinja")) made.erase("chat_template");
  write_json(to / "tokenizer_config.json", made);
}

/// The file without its chat template. The order of keys stays, since tokens get their ids in it.
void erase_chat_template(const fs::path& tokenizer_config) {
  auto config = nlohmann::ordered_json::parse(read_text(tokenizer_config));
  if (config.erase("chat_template") == 0) return;
  write_text(tokenizer_config,
             config.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

/// A byte order mark is no part of a template.
void remove_byte_order_mark(const fs::path& file) {
  if (fs::exists(file) && read_text(file).starts_with("\xef\xbb\xbf"))
    write_text(file, read_lines(file));
}

/// What transformers' image processor does to a picture before the model sees it, where that is
/// what Attune does: scaled (bilinear) to the model's size, then (pixel / 255 - mean) / deviation.
json make_image_processor(const json& config) {
  json made = {{"image_processor_type", "ViTImageProcessor"},
               {"do_resize", true},
               {"resample", 2},
               {"do_rescale", true},
               {"rescale_factor", 1.0 / 255},
               {"do_normalize", true}};
  for (const char* key : {"image_mean", "image_std"}) made[key] = config.at(key);
  return made;
}

/// Height and width of what the model takes; absent for a model of texts.
std::optional<std::pair<json, json>> picture_size(const json& config) {
  const auto size = config.find("image_size");
  if (size == config.end()) return std::nullopt;
  if (size->is_number_integer()) return std::pair(*size, *size);
  if (size->is_array() && size->size() == 2) return std::pair((*size)[0], (*size)[1]);
  return std::nullopt;
}

/// A processor that was made or belongs to another picture size is written for this one.
void add_image_processor(const fs::path& to, const json& config, const json& source_config) {
  const auto size = picture_size(config);
  const auto file = to / "preprocessor_config.json";
  const bool is_there = fs::exists(file);
  if (!size || (is_there && picture_size(source_config) == size)) return;
  if (!is_there && !(config.contains("image_mean") && config.contains("image_std"))) return;
  auto processor = is_there ? read_json(file) : make_image_processor(config);
  const json sides = {{"height", size->first}, {"width", size->second}};
  processor["size"] = sides;
  if (processor.contains("crop_size")) processor["crop_size"] = sides;
  write_json(file, processor);
}

/// Generation in transformers stops at the ids of generation_config.json alone: where the answers
/// of a template end must be among them.
void add_end_of_turn(const fs::path& to, const TrainedChat& chat, const json& config) {
  if (!chat.end) return;
  const auto file = to / "generation_config.json";
  auto generation = fs::exists(file) ? read_json(file) : json::object();
  for (const char* key : {"bos_token_id", "pad_token_id", "eos_token_id"})
    if (!generation.contains(key) && config.contains(key)) generation[key] = config[key];
  auto ends = token_ids(generation, "eos_token_id");
  if (std::ranges::find(ends, *chat.end) != ends.end()) return;
  ends.push_back(*chat.end);
  generation["eos_token_id"] = ends.size() == 1 ? json(*chat.end) : json(ends);
  write_json(file, generation);
}

/// Where transformers looks first; what the source has elsewhere is taken away.
void replace_chat_template(const fs::path& to, const TrainedChat& chat, const json& config) {
  const auto more = to / "additional_chat_templates";
  fs::remove_all(more);
  fs::remove(to / "chat_template.json");
  write_text(to / "chat_template.jinja", chat.jinja);
  if (!chat.tool_use.empty()) {
    fs::create_directories(more);
    write_text(more / "tool_use.jinja", chat.tool_use);
  }
  if (fs::exists(to / "tokenizer_config.json")) erase_chat_template(to / "tokenizer_config.json");
  add_end_of_turn(to, chat, config);
}

void add_trained_chat(const fs::path& to, const TrainedChat& chat, const json& config) {
  if (chat.jinja.empty()) return;
  if (chat.replaces) return replace_chat_template(to, chat, config);
  write_text(to / trained_chat_template, chat.jinja);
}

}  // namespace

std::string chat_file(const TrainedChat& chat) {
  return chat.replaces ? "chat_template.jinja" : trained_chat_template;
}

void export_model_folder(const fs::path& to, const ModelFiles& source, const fs::path& folder,
                         json config, const Tensors& tensors, const TrainedChat& chat,
                         std::uint64_t largest_file) {
  name_stored_type(config, tensors);
  write_atomically(place_of_new_folder(to), [&](const fs::path& temporary) {
    fs::create_directory(temporary);
    if (fs::exists(folder / "config.json")) copy_kept_files(folder, temporary);
    write_config(temporary / "config.json", folder / "config.json", config);
    write_weights(temporary, tensors, largest_file);
    const bool has_generation = source.generation.is_object() && !source.generation.empty();
    if (has_generation && !fs::exists(temporary / "generation_config.json"))
      write_json(temporary / "generation_config.json", source.generation);
    add_tokenizer(temporary, config, source);
    remove_byte_order_mark(temporary / "chat_template.jinja");
    add_trained_chat(temporary, chat, config);
    add_image_processor(temporary, config, source.config);
    add_card(temporary, source.licence);
  });
}

}  // namespace attune
