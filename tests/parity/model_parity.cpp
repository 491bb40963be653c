// model_parity REQUEST.json: runs a model plugin on given token ids or pictures and writes what it
// computes, for model_parity.py to compare.
#include <attune/batch.hpp>
#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <attune/model.hpp>
#include <attune/nn.hpp>
#include <attune/registry.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "core/files.hpp"
#include "nn/generate.hpp"
#include "strategy/strategies.hpp"
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
  if (value.is_object()) {
    attune::NumberMap numbers;
    for (const auto& [name, number] : value.items())
      numbers.emplace_back(name, number.get<double>());
    return numbers;
  }
  if (!value.empty() && value[0].is_number_integer()) return value.get<std::vector<std::int64_t>>();
  return value.get<std::vector<std::string>>();
}

template <class Interface>
std::shared_ptr<Interface> build(const attune::Registry& registry, attune::Kind kind,
                                 const json& request, void* context = nullptr) {
  const auto& entry = registry.find(kind, request.at("plugin"));
  const auto options = entry.defaults();
  for (const auto& option : entry.schema.options) {
    if (request.contains(option.name))
      option.set(options.get(), option_value(request[option.name]));
  }
  return std::static_pointer_cast<Interface>(entry.build(options.get(), context));
}

/// One strategy, or a list of them.
attune::Strategies listed(const attune::Registry& registry, const json& requests) {
  std::vector<attune::Strategies::Named> list;
  for (const auto& request : requests.is_array() ? requests : json::array({requests}))
    list.push_back(
        {request.at("plugin"), build<attune::Strategy>(registry, attune::Kind::strategy, request)});
  return attune::Strategies(std::move(list));
}

/// The request's samples: token ids, or pictures in a safetensors file.
std::vector<at::Tensor> samples_of(const json& request) {
  std::vector<at::Tensor> samples;
  if (request.contains("pixels"))
    return attune::open_safetensors(request["pixels"].get<std::string>())->read("pixels").unbind();
  for (const auto& ids : request.at("samples"))
    samples.push_back(torch::tensor(ids.get<std::vector<std::int64_t>>(), at::kLong));
  return samples;
}

attune::Batch batch_of(const std::vector<at::Tensor>& samples) {
  if (samples.front().dim() == 1) return attune::pack(samples);
  attune::Batch batch;
  batch.columns["pixels"] = torch::stack(samples);
  for (std::int64_t sample = 1; sample <= std::ssize(samples); ++sample)
    batch.starts.push_back(sample);
  return batch;
}

/// Classes, or values where one of them is no integer.
at::Tensor targets_of(const json& targets) {
  const bool are_classes =
      std::ranges::all_of(targets, [](const json& one) { return one.is_number_integer(); });
  return are_classes ? torch::tensor(targets.get<std::vector<std::int64_t>>(), at::kLong)
                     : torch::tensor(targets.get<std::vector<float>>());
}

at::Tensor alone(attune::Model& model, const std::vector<at::Tensor>& samples) {
  std::vector<at::Tensor> logits;
  for (const auto& sample : samples) logits.push_back(model.logits(batch_of({sample})));
  return at::cat(logits);
}

/// As the parameters' own file would hold them.
std::vector<attune::NamedTensor> gradients(attune::Model& model) {
  std::set<std::string> transposed;
  for (const auto& [name, linear] : attune::nn::linears(model.module()))
    if (linear->is_stored_transposed) transposed.insert(name + ".weight");
  std::vector<attune::NamedTensor> gradients;
  for (const auto& [name, parameter] : attune::trainable(model))
    if (parameter.grad().defined())
      gradients.emplace_back("gradient " + name,
                             transposed.contains(name) ? parameter.grad().t() : parameter.grad());
  return gradients;
}

/// LoRA's B is zero at first: a change that changes nothing would compare equal whatever became of
/// it.
void randomise(attune::Strategies& strategies, attune::Model& model) {
  const torch::NoGradGuard no_grad;
  for (auto& [name, parameter] : strategies.state(model)) parameter.normal_(0, 0.05);
}

void run(const json& request) {
  attune::Registry registry;
  attune::load_plugins(registry, {request.at("plugins").get<std::string>()});
  auto files = attune::ModelFiles::open(request.at("model").at("path").get<std::string>());
  attune::ModelContext context{files.config, *files.weights,
                               request.value("labels", std::vector<std::string>())};
  torch::manual_seed(0);
  const auto model =
      build<attune::Model>(registry, attune::Kind::model, request.at("model"), &context);
  auto strategies = listed(registry, request.at("strategy"));
  strategies.prepare(*model);
  if (request.value("randomise", false)) randomise(strategies, *model);

  const std::filesystem::path output = request.at("output").get<std::string>();
  std::vector<attune::NamedTensor> results;
  const auto samples = samples_of(request);
  auto batch = batch_of(samples);
  batch.targets = targets_of(request.at("targets"));

  const auto loss = strategies.loss(*model, batch);
  results.emplace_back("loss", loss.sum.detach());
  results.emplace_back(
      "counts",
      torch::tensor({loss.count, loss.correct.defined() ? loss.correct.item<std::int64_t>() : 0}));
  loss.sum.backward();
  for (auto& gradient : gradients(*model)) results.push_back(std::move(gradient));

  const torch::NoGradGuard no_grad;
  results.emplace_back("logits", model->logits(batch));
  results.emplace_back("alone", alone(*model, samples));
  if (request.contains("prompt")) {
    const auto tokens =
        attune::nn::generate(*model, request["prompt"], {.max_tokens = request.at("max_tokens")});
    results.emplace_back("generated", torch::tensor(tokens, at::kInt));
  }
  if (const auto adapter = strategies.export_adapter(*model)) {
    attune::write_text(output / "adapter" / "adapter_config.json", adapter->config);
    attune::write_safetensors(output / "adapter" / "adapter_model.safetensors", adapter->tensors);
  }
  strategies.merge(*model);
  results.emplace_back("merged", model->logits(batch));
  attune::write_text(output / "config.json", model->config().dump());
  attune::write_safetensors(output / "model.safetensors",
                            attune::nn::stored_tensors(model->module()));
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
