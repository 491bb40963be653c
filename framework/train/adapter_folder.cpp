#include "train/adapter_folder.hpp"

#include <attune/error.hpp>
#include <attune/weights.hpp>
#include <torch/torch.h>

#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "weights/json_file.hpp"
#include "weights/safetensors.hpp"

namespace attune::train {
namespace fs = std::filesystem;

void write_adapter(const Adapter& adapter, const std::string& base_sha256, const fs::path& folder) {
  std::vector<NamedTensor> tensors;
  for (const auto& [name, tensor] : adapter.tensors) tensors.emplace_back(name, tensor.detach().to(torch::kCPU).contiguous());
  write_atomically(place_of_new_folder(folder), [&](const fs::path& temporary) {
    fs::create_directory(temporary);
    write_safetensors(temporary / "adapter_model.safetensors", tensors);
    write_text(temporary / "adapter_config.json", adapter.config);
    write_text(temporary / "base.json", nlohmann::ordered_json{{"base_model_sha256", base_sha256}}.dump(2) + "\n");
  });
}

Adapter read_adapter(const fs::path& folder) {
  for (const char* file : {"adapter_config.json", "adapter_model.safetensors"})
    if (!fs::exists(folder / file)) fail("{}: is no adapter folder: it has no {}", folder.string(), file);
  Adapter adapter{weights::read_json(folder / "adapter_config.json").dump(), {}};
  const auto source = open_safetensors(folder / "adapter_model.safetensors");
  for (const auto& info : source->tensors()) adapter.tensors.emplace_back(info.name, source->read(info.name));
  return adapter;
}

std::string base_of_adapter(const fs::path& folder) {
  const auto file = folder / "base.json";
  return fs::exists(file) ? weights::read_json(file).value("base_model_sha256", "") : "";
}

}  // namespace attune::train
