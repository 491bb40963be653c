#include <attune/adapter.hpp>
#include <attune/error.hpp>
#include <attune/module_name.hpp>
#include <attune/nn.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "strategy/base_parameters.hpp"

namespace attune::nn {

namespace {

/// All linear layers but the head's.
std::vector<NamedLinear> linears_below_head(Model& model) {
  auto all = linears(model.module());
  const auto heads = model.head_modules();
  std::erase_if(all, [&](const NamedLinear& named) {
    return named.second.get() == &model.projection() ||
           std::ranges::any_of(heads, [&](const auto& head) {
             return named.first == head || named.first.starts_with(head + ".");
           });
  });
  return all;
}

template <class Layer>
void keep_chosen(std::vector<std::pair<std::string, Layer>>& layers,
                 const std::vector<std::string>& chosen) {
  std::erase_if(layers, [&](const auto& named) {
    return std::ranges::find(chosen, named.first) == chosen.end();
  });
}

const std::vector<std::string> all_linear = {"all-linear"};

}  // namespace

std::vector<NamedLinear> choose_targets(Model& model, const std::vector<std::string>& targets,
                                        const std::string& option) {
  if (targets.empty()) fail("{} is empty: list linear layers, or set it to \"all-linear\"", option);
  auto layers = linears_below_head(model);
  if (targets != all_linear) keep_chosen(layers, select_names(targets, names_of(layers), option));
  if (layers.empty())
    fail(
        "{} is \"all-linear\", but the only linear layer of a {} model is its head: choose another "
        "strategy",
        option, model.spec().family);
  return layers;
}

Targets choose_targets_and_convolutions(Model& model, const std::vector<std::string>& targets) {
  Targets layers{linears_below_head(model), layers_of<Conv2d>(model.module())};
  if (layers.convolutions.empty() || targets.empty()) return {choose_targets(model, targets), {}};
  if (targets == all_linear) {
    if (layers.linears.empty())
      fail(
          "strategy.targets is \"all-linear\", but the only linear layer of a {} model is its "
          "head: list convolutions, such as \"{}\"",
          model.spec().family, last_part(layers.convolutions.back().first));
    return {layers.linears, {}};
  }
  auto names = names_of(layers.linears);
  std::ranges::copy(names_of(layers.convolutions), std::back_inserter(names));
  const auto chosen = select_names(targets, names, "strategy.targets");
  keep_chosen(layers.linears, chosen);
  keep_chosen(layers.convolutions, chosen);
  return layers;
}

std::vector<std::string> peft_names(Model& model, const std::vector<std::string>& chosen) {
  const std::set<std::string> all(chosen.begin(), chosen.end());
  std::set<std::string> partly;
  std::set<std::string> names;
  for (const auto& layers :
       {names_of(linears(model.module())), names_of(layers_of<Conv2d>(model.module()))})
    for (const auto& name : layers)
      if (!all.contains(name)) partly.insert(last_part(name));
  for (const auto& name : all)
    names.insert(partly.contains(last_part(name)) ? name : last_part(name));
  return {names.begin(), names.end()};
}

void train_head(ModelView& view) {
  for (const auto& name : view.model().head_modules())
    view.train(module_at(view.model().module(), name));
}

Adapter peft_adapter(Model& model, nlohmann::ordered_json config,
                     std::vector<NamedTensor> tensors) {
  // by Task
  static constexpr const char* tasks[] = {"CAUSAL_LM", "SEQ_CLS", "TOKEN_CLS",
                                          "FEATURE_EXTRACTION"};
  config["task_type"] = nullptr;  // PEFT's kinds of model all take tokens
  if (model.spec().vocabulary > 0)
    config["task_type"] = tasks[static_cast<std::size_t>(model.spec().task)];
  config["base_model_name_or_path"] = nullptr;
  config["inference_mode"] = true;
  if (!config.contains("modules_to_save")) config["modules_to_save"] = nullptr;
  // Where virtual tokens are all there is, PEFT has one wrapper less around the model.
  const bool wraps_once = config.contains("num_virtual_tokens");
  for (const auto& name : model.head_modules()) {
    if (config["modules_to_save"].is_null())
      config["modules_to_save"] = nlohmann::ordered_json::array();
    config["modules_to_save"].push_back(name);
    for (auto& parameter : module_at(model.module(), name).named_parameters())
      tensors.emplace_back(
          (wraps_once ? "base_model." + name + "." : peft_prefix(name)) + parameter.key(),
          parameter.value());
  }
  return {config.dump(2) + "\n", std::move(tensors)};
}

bool stored_transposed(const std::vector<NamedLinear>& layers) {
  return std::ranges::any_of(
      layers, [](const NamedLinear& named) { return named.second->is_stored_transposed; });
}

std::string peft_prefix(const std::string& module) { return "base_model.model." + module + "."; }

std::map<std::string, std::int64_t> parameter_depths(Model& model) {
  const auto depth = model.spec().depth;
  std::map<std::string, std::int64_t> depths;
  std::int64_t outside = 0;  // what is registered before the blocks, then what comes after them
  for (const auto& parameter : model.module().named_parameters()) {
    std::int64_t block = 0;
    while (block < depth && !parameter.key().starts_with(model.block_name(block))) ++block;
    if (block < depth) outside = depth + 1;
    depths[parameter.key()] = block < depth ? block + 1 : outside;
  }
  return depths;
}

bool is_delta(const torch::nn::Module& module) {
  return dynamic_cast<const Delta*>(&module) || dynamic_cast<const ConvolutionDelta*>(&module) ||
         dynamic_cast<const EmbeddingDelta*>(&module);
}

std::pair<std::string, std::shared_ptr<Embedding>> token_embedding(Model& model) {
  const auto vocabulary = model.spec().vocabulary;
  for (auto& named : layers_of<Embedding>(model.module()))  // that of positions comes after it
    if (vocabulary > 0 && named.second->weight.size(0) == vocabulary) return named;
  fail("a {} model has no token embedding", model.spec().family);
}

std::vector<NamedTensor> trained_base_parameters(Model& model) {
  std::set<const void*> added;
  for (const auto& item : model.module().named_modules("", false)) {
    if (!is_delta(*item.value()) && item.key() != virtual_tokens_name) continue;
    for (const auto& parameter : item.value()->parameters())
      added.insert(parameter.unsafeGetTensorImpl());
  }
  auto trained = trainable(model);
  std::erase_if(trained, [&](const NamedTensor& parameter) {
    return added.contains(parameter.second.unsafeGetTensorImpl());
  });
  return trained;
}

bool trains_only_adapters(Model& model) { return trained_base_parameters(model).empty(); }

}  // namespace attune::nn
