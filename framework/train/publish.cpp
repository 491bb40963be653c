#include "train/publish.hpp"

#include <attune/error.hpp>
#include <torch/torch.h>
#include <unistd.h>

#include "core/files.hpp"
#include "weights/model_files.hpp"
#include "weights/safetensors.hpp"

namespace attune::train {
namespace fs = std::filesystem;
namespace {

void publish_adapter(const Adapter& adapter, const fs::path& folder) {
  if (fs::exists(folder) && !fs::is_empty(folder)) fail("{}: is there already and not empty: name another folder", folder.string());
  const auto whole = fs::absolute(folder).lexically_normal();
  const auto temporary = whole.parent_path() / ("." + whole.filename().string() + "." + std::to_string(::getpid()) + ".tmp");
  fs::create_directories(temporary);
  std::vector<NamedTensor> tensors;
  for (const auto& [name, tensor] : adapter.tensors) tensors.emplace_back(name, tensor.detach().to(torch::kCPU).contiguous());
  write_safetensors(temporary / "adapter_model.safetensors", tensors);
  write_text(temporary / "adapter_config.json", adapter.config);
  fs::remove(whole);  // an empty folder
  fs::rename(temporary, whole);
}

void publish_model(Session& session, const fs::path& folder) {
  std::vector<NamedTensor> tensors;
  for (const auto& parameter : session.model->module().named_parameters())
    tensors.emplace_back(parameter.key(), parameter.value().detach().to(torch::kCPU).contiguous());
  const auto& files = *session.files;
  export_model_folder(folder, session.model->config(), files.tokenizer, files.chat_template, tensors, files.generation);
}

}  // namespace

void publish(Session& session, const fs::path& folder, bool merge) {
  const auto adapter = merge ? std::nullopt : session.strategy->export_adapter(*session.model);
  if (adapter) return publish_adapter(*adapter, folder);
  session.strategy->merge(*session.model);
  publish_model(session, folder);
}

std::string result_name(Session& session) { return session.strategy->export_adapter(*session.model) ? "adapter" : "model"; }

}  // namespace attune::train
