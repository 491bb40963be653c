#include "train/surroundings.hpp"

#include <attune/error.hpp>
#include <torch/torch.h>

#include <numeric>

#include "evaluate/evaluate.hpp"
#include "parallel/mpi.hpp"
#include "weights/licence.hpp"
#include "weights/model_files.hpp"

namespace attune::train {

Tokenizer RunSurroundings::tokenizer() {
  const auto json = nlohmann::json::parse(s_.comm.broadcast(s_.files->tokenizer.dump()));
  if (json.is_null()) fail("{}: has no tokenizer, which the strategy needs: put tokenizer.json beside the weights", s_.config.model.path);
  return Tokenizer(json);
}

std::shared_ptr<Model> RunSurroundings::open_model(const std::string& path) {
  const auto files = open_model_files(path, s_.comm);
  on_root(s_.comm, [&] { check_licence(*files, s_.config.model.allowed_licences); });
  config::Chosen plugin = s_.config.model_plugin;
  auto model = build_model(s_, plugin, *files);
  model->module().eval();
  for (auto& parameter : model->module().parameters()) parameter.requires_grad_(false);
  return model;
}

void RunSurroundings::for_each_batch(const std::string& path, std::int64_t samples, const std::function<void(const Batch&)>& work) {
  const auto data = path.empty() ? s_.data : std::make_shared<DataFile>(DataFile::open(path, s_.comm));
  if (data->kind() != s_.data->kind()) fail("{}: holds samples of kind '{}', but this run trains on '{}': prepare it as that", path, data->kind(), s_.data->kind());
  const auto& split = data->split("train");
  std::vector<std::int64_t> rows(static_cast<std::size_t>(samples_to_evaluate(split, samples)));
  std::iota(rows.begin(), rows.end(), 0);
  const auto size = static_cast<std::size_t>(s_.config.evaluate.micro_batch);
  for (std::size_t first = 0; first < rows.size(); first += size) {
    auto batch = load_batch(split, *s_.dataset, std::span(rows).subspan(first, std::min(size, rows.size() - first)));
    move_to(batch, s_.device);
    work(batch);
  }
}

}  // namespace attune::train
