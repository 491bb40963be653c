#include <attune/adapter.hpp>
#include <attune/error.hpp>
#include <attune/nn.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

namespace attune::nn {

std::vector<NamedLinear> choose_targets(Model& model, const std::vector<std::string>& targets, const std::string& option) {
  if (targets.empty()) fail("{} is empty: name linear layers, or set it to \"all-linear\"", option);
  auto all = linears(model.module());
  const auto heads = model.head_modules();
  std::erase_if(all, [&](const NamedLinear& named) {
    return named.second.get() == &model.projection() || std::ranges::any_of(heads, [&](const auto& head) { return named.first == head || named.first.starts_with(head + "."); });
  });
  if (targets == std::vector<std::string>{"all-linear"}) return all;
  std::vector<std::string> names;
  for (const auto& [name, linear] : all) names.push_back(name);
  const auto chosen = select_names(targets, names, option);
  std::erase_if(all, [&](const NamedLinear& named) { return std::ranges::find(chosen, named.first) == chosen.end(); });
  return all;
}

std::optional<LayerNames> layer_names(Model& model) {
  static const LayerNames families[] = {
      {{"k_proj", "v_proj"}, "self_attn.o_proj", "mlp.down_proj"},        // Llama and its kin
      {{"key", "value"}, "attention.output.dense", "output.dense"},       // BERT, RoBERTa
      {{"k_lin", "v_lin"}, "attention.out_lin", "ffn.lin2"},              // DistilBERT
      {{"c_attn"}, "attn.c_proj", "mlp.c_proj"},                          // GPT-2
  };
  const auto all = linears(model.module());
  const auto has = [&](const std::string& pattern) { return std::ranges::any_of(all, [&](const NamedLinear& named) { return name_matches(pattern, named.first); }); };
  for (const auto& family : families)
    if (std::ranges::all_of(family.keys_values, has) && has(family.attention_end) && has(family.mlp_end)) return family;
  return std::nullopt;
}

std::vector<std::string> peft_names(Model& model, const std::vector<NamedLinear>& chosen) {
  const auto last_part = [](const std::string& name) { return name.substr(name.rfind('.') + 1); };
  std::set<std::string> all, partly, names;
  for (const auto& [name, linear] : chosen) all.insert(name);
  for (const auto& [name, linear] : linears(model.module()))
    if (!all.contains(name)) partly.insert(last_part(name));
  for (const auto& name : all) names.insert(partly.contains(last_part(name)) ? name : last_part(name));
  return {names.begin(), names.end()};
}

void train_head(Model& model) {
  for (const auto& name : model.head_modules())
    for (auto& parameter : module_at(model.module(), name).parameters()) parameter.requires_grad_(true);
}

Adapter peft_adapter(Model& model, nlohmann::ordered_json config, std::vector<NamedTensor> tensors) {
  static constexpr const char* tasks[] = {"CAUSAL_LM", "SEQ_CLS", "TOKEN_CLS", "FEATURE_EXTRACTION"};  // by Task
  config["task_type"] = tasks[static_cast<std::size_t>(model.spec().task)];
  config["base_model_name_or_path"] = nullptr;
  config["inference_mode"] = true;
  if (!config.contains("modules_to_save")) config["modules_to_save"] = nullptr;
  // Where virtual tokens are all there is, PEFT has one wrapper less around the model.
  const bool wraps_once = config.contains("num_virtual_tokens");
  for (const auto& name : model.head_modules()) {
    if (config["modules_to_save"].is_null()) config["modules_to_save"] = nlohmann::ordered_json::array();
    config["modules_to_save"].push_back(name);
    for (auto& parameter : module_at(model.module(), name).named_parameters()) tensors.emplace_back((wraps_once ? "base_model." + name + "." : peft_prefix(name)) + parameter.key(), parameter.value());
  }
  return {config.dump(2) + "\n", std::move(tensors)};
}

bool stored_transposed(const std::vector<NamedLinear>& layers) {
  return std::ranges::any_of(layers, [](const NamedLinear& named) { return named.second->is_stored_transposed; });
}

std::string peft_prefix(const std::string& module) { return "base_model.model." + module + "."; }

std::map<std::string, std::int64_t> parameter_depths(Model& model) {
  const auto depth = model.spec().depth;
  std::map<std::string, std::int64_t> depths;
  std::int64_t outside = 0;  // what is registered before the blocks, then what comes after them
  for (const auto& parameter : model.module().named_parameters()) {
    std::int64_t block = 0;
    while (block < depth && !parameter.key().starts_with(model.block_prefix(block))) ++block;
    if (block < depth) outside = depth + 1;
    depths[parameter.key()] = block < depth ? block + 1 : outside;
  }
  return depths;
}

bool trains_only_adapters(Model& model) {
  std::set<const void*> added;
  for (const auto& item : model.module().named_modules("", false)) {
    if (!dynamic_cast<Delta*>(item.value().get()) && item.key() != virtual_tokens_name) continue;
    for (const auto& parameter : item.value()->parameters()) added.insert(parameter.unsafeGetTensorImpl());
  }
  return std::ranges::all_of(trainable(model), [&](const NamedTensor& parameter) { return added.contains(parameter.second.unsafeGetTensorImpl()); });
}

}  // namespace attune::nn
