#include "train/publish.hpp"

#include <attune/error.hpp>
#include <attune/nn.hpp>
#include <torch/torch.h>

#include "train/adapter_folder.hpp"
#include "weights/model_files.hpp"

namespace attune::train {
namespace fs = std::filesystem;
namespace {

void publish_model(Session& session, const fs::path& folder) {
  auto tensors = nn::stored_tensors(session.model->module());
  for (auto& [name, tensor] : tensors) tensor = tensor.to(torch::kCPU).contiguous();
  const auto& files = *session.files;
  export_model_folder(folder, session.model->config(), files.tokenizer, files.chat_template, tensors, files.generation);
}

}  // namespace

void publish(Session& session, const fs::path& folder, bool merge) {
  const auto adapter = merge ? std::nullopt : session.strategies->export_adapter(*session.model);
  if (adapter) return write_adapter(*adapter, session.base_sha256, folder);
  session.strategies->merge(*session.model);
  publish_model(session, folder);
}

std::string result_name(Session& session) { return session.strategies->export_adapter(*session.model) ? "adapter" : "model"; }

}  // namespace attune::train
