// What strategies share: choosing layers, depths, and the adapter folder that PEFT reads.
#pragma once
#include <attune/api.hpp>
#include <attune/nn.hpp>
#include <attune/strategy.hpp>
#include <nlohmann/json_fwd.hpp>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

ATTUNE_API_BEGIN
namespace attune::nn {

using NamedLinear = std::pair<std::string, std::shared_ptr<Linear>>;
using NamedConvolution = std::pair<std::string, std::shared_ptr<Conv2d>>;

/// The linear layers that match `targets`, in the model's order; {"all-linear"}: all but the head,
/// as in PEFT. Error for an empty list, and with near names for a pattern that matches none; option
/// is the patterns' own name in the message.
std::vector<NamedLinear> choose_targets(Model& model, const std::vector<std::string>& targets,
                                        const std::string& option = "strategy.targets");

struct Targets {
  std::vector<NamedLinear> linears;
  std::vector<NamedConvolution> convolutions;
};
/// The same over convolutions too, which {"all-linear"} leaves out. Error when that leaves nothing.
Targets choose_targets_and_convolutions(Model& model, const std::vector<std::string>& targets);

template <class Layer>
std::vector<std::string> names_of(const std::vector<std::pair<std::string, Layer>>& layers) {
  std::vector<std::string> names;
  for (const auto& [name, layer] : layers) names.push_back(name);
  return names;
}

/// How PEFT's target_modules names these layers: the last part of a name where every layer that
/// bears it is chosen, else the whole.
std::vector<std::string> peft_names(Model& model, const std::vector<std::string>& chosen);

/// A classifier's head is new: whatever is adapted, it trains in full. Nothing for other models.
void train_head(ModelView& view);

/// `config` with what every adapter_config.json holds, and the tensors of a classifier's head
/// beside the adapter's own.
Adapter peft_adapter(Model& model, nlohmann::ordered_json config, std::vector<NamedTensor> tensors);

/// PEFT's fan_in_fan_out: whether files hold these layers' weights as [in, out], as GPT-2's do.
bool stored_transposed(const std::vector<NamedLinear>& layers);

/// "base_model.model." and the module's name, with a dot: where PEFT puts what belongs to it.
std::string peft_prefix(const std::string& module);

/// How deep every parameter lies: 0 before the blocks (embeddings), i + 1 in block i, spec().depth
/// + 1 after them (last norm, head).
std::map<std::string, std::int64_t> parameter_depths(Model& model);

/// Whether the module is a change to a layer: of a linear layer, a convolution or an embedding.
bool is_delta(const torch::nn::Module& module);

/// The embedding of the tokens, with its name. Error for a model that takes none.
std::pair<std::string, std::shared_ptr<Embedding>> token_embedding(Model& model);

/// Whether all that is trained belongs to deltas and virtual tokens, so that
/// ForwardContext::base_alone() gives the base back.
bool trains_only_adapters(Model& model);

/// The name under which a strategy registers its virtual tokens with the model's module.
inline constexpr const char* virtual_tokens_name = "virtual_tokens";

}  // namespace attune::nn
ATTUNE_API_END
