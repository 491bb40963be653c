#include "weights/weight_files.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/names.hpp"
#include "run_directory/places.hpp"
#include "weights/gguf.hpp"
#include "weights/safetensors.hpp"

namespace attune::weights {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

constexpr const char* whole_file = "model.safetensors";
constexpr const char* index_file = "model.safetensors.index.json";

/// In order; none whose name begins with a dot, such as the "._model.gguf" that macOS writes.
std::vector<fs::path> files_ending(const fs::path& folder, const std::string& extension) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == extension && !entry.path().filename().string().starts_with('.'))
      files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

std::string names_of(const std::vector<fs::path>& files) {
  std::vector<std::string> names;
  for (const auto& file : files) names.push_back(file.filename().string());
  return joined(names);
}

/// The folders directly below `folder` in which `file` exists, in order.
std::vector<fs::path> folders_with(const fs::path& folder, const char* file) {
  std::vector<fs::path> folders;
  for (const auto& entry :
       fs::directory_iterator(folder, fs::directory_options::skip_permission_denied))
    if (entry.is_directory() && fs::exists(entry.path() / file)) folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  return folders;
}

bool is_broken_link(const fs::path& path) { return fs::is_symlink(path) && !fs::exists(path); }

/// "model-00001-of-00002.safetensors", "model.fp16-00001-of-00002.safetensors"
bool is_shard(const fs::path& file) {
  return file.stem().string().find("-of-") != std::string::npos;
}

void refuse_quantized(const fs::path& folder, const json& config) {
  const auto found = config.find("quantization_config");
  if (found == config.end() || !found->is_object()) return;
  const auto method = found->find("quant_method");
  const auto name = method != found->end() && method->is_string() ? method->get<std::string>()
                                                                  : "an unnamed method";
  fail(
      "{}: its weights are quantized (quantization_config: {}), which is not supported; use the "
      "unquantized model, or its GGUF file",
      (folder / "config.json").string(), name);
}

/// transformers reads the weights and then applies the adapter; the weights alone would be another
/// model.
void refuse_adapter(const fs::path& folder) {
  if (!fs::exists(folder / "adapter_config.json")) return;
  fail(
      "{}: contains a model and an adapter for it (adapter_config.json), which transformers "
      "applies when it loads the model; move the adapter's files to another folder",
      folder.string());
}

/// The file that config.json names for transformers; "" when it names none.
std::string named_file(const fs::path& folder, const json& config) {
  const auto found = config.find("transformers_weights");
  if (found == config.end() || found->is_null()) return "";
  const auto name = found->is_string() ? found->get<std::string>() : "";
  const bool is_readable =
      name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json");
  if (!is_readable || fs::path(name).filename() != name)
    fail(
        "{}: has transformers_weights = {}, which must be the name of a .safetensors file or index "
        "beside it",
        (folder / "config.json").string(), found->dump());
  if (!fs::exists(folder / name))
    fail("{}: names the weights '{}', which are not in the same folder; fetch that file too",
         (folder / "config.json").string(), name);
  return name;
}

/// Why nothing in the folder counts as weights, and what to do about what is there.
std::string why_no_weights(const fs::path& folder) {
  for (const char* name : {whole_file, index_file})
    if (is_broken_link(folder / name))
      return fmt::format("{} is a link to {}, which does not exist: fetch the model again", name,
                         fs::read_symlink(folder / name).string());
  if (const auto ggufs = files_ending(folder, ".gguf"); !ggufs.empty())
    return fmt::format("of its GGUF files ({}) name the one you mean", names_of(ggufs));
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json"})
    if (fs::exists(folder / name))
      return fmt::format(
          "{} is not read (a pickle file can execute code): load the model in transformers and "
          "save it with save_pretrained",
          name);
  for (const char* name : {"tf_model.h5", "flax_model.msgpack", "model.onnx"})
    if (fs::exists(folder / name))
      return fmt::format("{} is not read: use the model's safetensors files", name);
  if (fs::exists(folder / "adapter_model.safetensors"))
    return "adapter_model.safetensors is an adapter: name the model it was made for";
  const auto others = files_ending(folder, ".safetensors");
  const auto shards =
      static_cast<std::size_t>(std::count_if(others.begin(), others.end(), is_shard));
  if (shards > 0 && shards == others.size())
    return fmt::format("{} need the {} that lists them: fetch it too", names_of(others),
                       index_file);
  if (others.size() == 1)
    return fmt::format(
        "transformers does not read {}: rename it to {} if it contains the whole model",
        names_of(others), whole_file);
  if (!others.empty())
    return fmt::format(
        "transformers reads none of {}: rename the one that contains the whole model to {}",
        names_of(others), whole_file);
  if (const auto below = folders_with(folder, whole_file); !below.empty())
    return fmt::format("{} contains some: name that folder", below.front().string());
  return "fetch them too";
}

/// The snapshot of the Hugging Face cache that refs/main points to, or else the only one; "" when
/// `folder` is not of that cache.
std::string snapshot_of(const fs::path& folder) {
  const auto snapshots = folder / "snapshots";
  if (!fs::is_directory(snapshots)) return "";
  if (const auto reference = folder / "refs" / "main"; fs::exists(reference)) {
    auto revision = read_text(reference);
    revision.erase(revision.find_last_not_of(" \t\r\n") + 1);
    if (!revision.empty() && fs::is_directory(snapshots / revision))
      return (snapshots / revision).string();
  }
  const auto models = folders_with(snapshots, "config.json");
  return models.size() == 1 ? models.front().string() : "";
}

/// What to name instead of a folder without config.json that holds no GGUF model either.
std::string where_the_model_is(const fs::path& folder) {
  if (is_broken_link(folder / "config.json"))
    return fmt::format("; config.json is a link to {}, which does not exist: fetch the model again",
                       fs::read_symlink(folder / "config.json").string());
  if (fs::exists(folder / "adapter_config.json"))
    return ", but this is an adapter: name the model it was made for";
  if (const auto hint = cached_snapshot(folder); !hint.empty()) return hint;
  const auto below = folders_with(folder, "config.json");
  if (below.size() == 1) return fmt::format("; name {}, which has one", below.front().string());
  if (below.size() > 1)
    return fmt::format("; name one of the folders in it that have one: {}", names_of(below));
  if (run_directory::is_run_directory(folder))
    return ", but this is a run directory: `attune evaluate`, `generate` and `export` take it";
  return "";
}

/// Whether the files are all the parts of one model, or some of them.
bool are_one_split_model(const std::vector<fs::path>& files) {
  const auto first = GgufPartName::parse(files.front().filename().string());
  return first && std::all_of(files.begin(), files.end(), [&](const fs::path& file) {
           const auto name = GgufPartName::parse(file.filename().string());
           return name && name->stem == first->stem && name->count == first->count;
         });
}

}  // namespace

std::unique_ptr<WeightSource> open_folder_weights(const fs::path& folder, const json& config,
                                                  std::vector<fs::path>& files) {
  refuse_quantized(folder, config);
  auto name = named_file(folder, config);
  if (name.empty())
    name = fs::exists(folder / whole_file)   ? whole_file
           : fs::exists(folder / index_file) ? index_file
                                             : "";
  if (name.empty())
    fail("{}: contains no weights; expected {}, or {} and its files ({})", folder.string(),
         whole_file, index_file, why_no_weights(folder));
  refuse_adapter(folder);
  if (name.ends_with(".json")) return open_safetensors_index(folder / name, &files);
  files = {folder / name};
  return open_safetensors(folder / name);
}

std::string cached_snapshot(const fs::path& folder) {
  if (const auto snapshot = snapshot_of(folder); !snapshot.empty())
    return fmt::format("; this is a folder of the Hugging Face cache: name {}", snapshot);
  for (const auto& model : folders_with(folder, "snapshots"))
    if (const auto snapshot = snapshot_of(model); !snapshot.empty())
      return fmt::format(
          "; this is the Hugging Face cache: name the snapshot of a model, such as {}", snapshot);
  return "";
}

bool holds_gguf(const fs::path& folder) { return !files_ending(folder, ".gguf").empty(); }

fs::path only_gguf(const fs::path& folder) {
  const auto files = files_ending(folder, ".gguf");
  if (files.empty())
    fail(
        "{}: contains no config.json and no .gguf file; expected a Hugging Face model folder "
        "(config.json, *.safetensors, tokenizer.json){}",
        folder.string(), where_the_model_is(folder));
  if (files.size() > 1 && !are_one_split_model(files))
    fail("{}: contains several GGUF files ({}); name one of them", folder.string(),
         names_of(files));
  return files.front();
}

}  // namespace attune::weights
