#include "train/adapter_folder.hpp"

#include <attune/error.hpp>
#include <attune/weights.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/names.hpp"
#include "weights/json_file.hpp"
#include "weights/safetensors.hpp"

namespace attune::train {
namespace fs = std::filesystem;
namespace {

/// Folders below that hold an adapter, as PEFT saves those that have a name.
std::vector<std::string> named_adapters(const fs::path& folder) {
  std::vector<std::string> names;
  if (!fs::is_directory(folder)) return names;
  for (const auto& entry : fs::directory_iterator(folder))
    if (fs::exists(entry.path() / "adapter_config.json")) names.push_back(entry.path().string());
  std::ranges::sort(names);
  return names;
}

void check_folder(const fs::path& folder) {
  const auto missing = [&](const char* file) { return !fs::exists(folder / file); };
  if (missing("adapter_config.json")) {
    const auto below = named_adapters(folder);
    if (!below.empty())
      fail("{}: has no adapter_config.json, but some of its subfolders do: set adapter to {}",
           folder.string(), joined(below, " or "));
    fail("{}: is not an adapter folder: it has no adapter_config.json", folder.string());
  }
  if (!missing("adapter_model.safetensors")) return;
  if (!missing("adapter_model.bin"))
    fail(
        "{}: has adapter_model.bin, which is a Python pickle, and no adapter_model.safetensors: "
        "load the adapter in PEFT and save it with save_pretrained",
        folder.string());
  fail("{}: is not an adapter folder: it has no adapter_model.safetensors", folder.string());
}

}  // namespace

void write_adapter(const Adapter& adapter, const std::string& base_sha256, const fs::path& folder,
                   const ExtraFiles& extra) {
  std::vector<NamedTensor> tensors;
  for (const auto& [name, tensor] : adapter.tensors)
    tensors.emplace_back(name, tensor.detach().to(torch::kCPU).contiguous());
  write_atomically(place_of_new_folder(folder), [&](const fs::path& temporary) {
    fs::create_directory(temporary);
    write_safetensors(temporary / "adapter_model.safetensors", tensors);
    write_text(temporary / "adapter_config.json", adapter.config);
    for (const auto& [name, text] : extra) write_text(temporary / name, text);
    write_text(temporary / "base.json",
               nlohmann::ordered_json{{"base_model_sha256", base_sha256}}.dump(2) + "\n");
  });
}

Adapter read_adapter(const fs::path& folder) {
  check_folder(folder);
  weights::read_json(folder / "adapter_config.json");  // reports what is wrong with it
  // the text, whose patterns count in their order
  Adapter adapter{read_text(folder / "adapter_config.json"), {}};
  const auto source = open_safetensors(folder / "adapter_model.safetensors");
  for (const auto& info : source->tensors())
    adapter.tensors.emplace_back(info.name, source->read(info.name));
  return adapter;
}

std::string base_of_adapter(const fs::path& folder) {
  const auto file = folder / "base.json";
  return fs::exists(file) ? weights::read_json(file).value("base_model_sha256", "") : "";
}

}  // namespace attune::train
