// model_parity REQUEST.json: runs a model plugin on given token ids and writes what it computes, for model_parity.py to compare.
#include <attune/batch.hpp>
#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <attune/model.hpp>
#include <attune/registry.hpp>
#include <torch/torch.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "nn/generate.hpp"
#include "nn/strategies.hpp"
#include "registry/loader.hpp"
#include "weights/model_files.hpp"
#include "weights/safetensors.hpp"

namespace {

using nlohmann::json;

attune::OptionValue option_value(const json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (value.is_number()) return value.get<double>();
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object()) return value.get<attune::NumberMap>();
  return value.get<std::vector<std::string>>();
}

template <class Interface>
std::shared_ptr<Interface> build(const attune::Registry& registry, attune::Kind kind, const json& request, void* context = nullptr) {
  const auto& entry = registry.find(kind, request.at("plugin"));
  const auto options = entry.defaults();
  for (const auto& option : entry.schema.options) {
    if (request.contains(option.name)) option.set(options.get(), option_value(request[option.name]));
  }
  return std::static_pointer_cast<Interface>(entry.build(options.get(), context));
}

/// One strategy, or a list of them.
attune::Strategies listed(const attune::Registry& registry, const json& requests) {
  std::vector<attune::Strategies::Named> list;
  for (const auto& request : requests.is_array() ? requests : json::array({requests}))
    list.push_back({request.at("plugin"), build<attune::Strategy>(registry, attune::Kind::strategy, request)});
  return attune::Strategies(std::move(list));
}

std::vector<at::Tensor> samples_of(const json& request) {
  std::vector<at::Tensor> samples;
  for (const auto& ids : request.at("samples")) samples.push_back(torch::tensor(ids.get<std::vector<std::int64_t>>(), at::kLong));
  return samples;
}

at::Tensor alone(attune::Model& model, const std::vector<at::Tensor>& samples) {
  std::vector<at::Tensor> logits;
  for (const auto& sample : samples) logits.push_back(model.logits(attune::pack({sample})));
  return at::cat(logits);
}

/// LoRA's B is zero at first: a change that changes nothing would compare equal whatever became of it.
void randomise(attune::Strategies& strategies, attune::Model& model) {
  const torch::NoGradGuard no_grad;
  for (auto& [name, parameter] : strategies.state(model)) parameter.normal_(0, 0.05);
}

void run(const json& request) {
  attune::Registry registry;
  attune::load_plugins(registry, {request.at("plugins").get<std::string>()});
  auto files = attune::ModelFiles::open(request.at("model").at("path").get<std::string>());
  attune::ModelContext context{files.config, *files.weights, request.value("labels", std::vector<std::string>())};
  torch::manual_seed(0);
  const auto model = build<attune::Model>(registry, attune::Kind::model, request.at("model"), &context);
  auto strategies = listed(registry, request.at("strategy"));
  strategies.prepare(*model);
  if (request.value("randomise", false)) randomise(strategies, *model);

  const std::filesystem::path output = request.at("output").get<std::string>();
  std::vector<attune::NamedTensor> results;
  const auto samples = samples_of(request);
  auto batch = attune::pack(samples);
  batch.targets = torch::tensor(request.at("targets").get<std::vector<std::int64_t>>(), at::kLong);

  const auto loss = strategies.loss(*model, batch);
  results.emplace_back("loss", loss.sum.detach());
  results.emplace_back("counts", torch::tensor({loss.count, loss.correct}));
  loss.sum.backward();
  for (const auto& [name, parameter] : attune::trainable(*model)) {
    if (parameter.grad().defined()) results.emplace_back("gradient " + name, parameter.grad());
  }

  const torch::NoGradGuard no_grad;
  results.emplace_back("logits", model->logits(batch));
  results.emplace_back("alone", alone(*model, samples));
  if (request.contains("prompt")) {
    const auto tokens = attune::nn::generate(*model, request["prompt"], {.max_tokens = request.at("max_tokens")});
    results.emplace_back("generated", torch::tensor(tokens, at::kInt));
  }
  if (const auto adapter = strategies.export_adapter(*model)) {
    attune::write_text(output / "adapter" / "adapter_config.json", adapter->config);
    attune::write_safetensors(output / "adapter" / "adapter_model.safetensors", adapter->tensors);
  }
  strategies.merge(*model);
  results.emplace_back("merged", model->logits(batch));
  attune::write_text(output / "config.json", model->config().dump());
  std::vector<attune::NamedTensor> parameters;
  for (const auto& parameter : model->module().named_parameters()) parameters.emplace_back(parameter.key(), parameter.value());
  attune::write_safetensors(output / "model.safetensors", parameters);
  attune::write_safetensors(output / "results.safetensors", results);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) attune::fail("usage: model_parity REQUEST.json");
  run(json::parse(attune::read_text(argv[1])));
} catch (const attune::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return static_cast<int>(attune::ExitCode::user_mistake);
}
