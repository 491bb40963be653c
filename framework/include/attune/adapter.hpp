// Helpers for strategies: layer selection, parameter depths, and adapter folders in PEFT's layout.
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

/// Returns the linear layers that match `targets`, in the model's order. {"all-linear"} selects all
/// but the head, as in PEFT. Error for an empty list, and for a pattern that matches no layer; that
/// message suggests similar names. `option` is the option's name in the message.
std::vector<NamedLinear> choose_targets(Model& model, const std::vector<std::string>& targets,
                                        const std::string& option = "strategy.targets");

struct Targets {
  std::vector<NamedLinear> linears;
  std::vector<NamedConvolution> convolutions;
};
/// As choose_targets(), but also matches convolutions. {"all-linear"} selects no convolutions.
/// Error if no layer matches.
Targets choose_targets_and_convolutions(Model& model, const std::vector<std::string>& targets);

template <class Layer>
std::vector<std::string> names_of(const std::vector<std::pair<std::string, Layer>>& layers) {
  std::vector<std::string> names;
  for (const auto& [name, layer] : layers) names.push_back(name);
  return names;
}

/// PEFT's target_modules for these layers. A name is shortened to its last part if every layer with
/// that last part is chosen.
std::vector<std::string> peft_names(Model& model, const std::vector<std::string>& chosen);

/// Trains a classifier's head in full, because it is new if the labels are. No effect on other
/// models.
void train_head(ModelView& view);

/// Completes `config` with the keys common to every adapter_config.json, and appends the tensors of
/// a classifier's head to `tensors`.
Adapter peft_adapter(Model& model, nlohmann::ordered_json config, std::vector<NamedTensor> tensors);

/// PEFT's fan_in_fan_out: whether weight files store these layers' weights as [in, out], as GPT-2's
/// do.
bool stored_transposed(const std::vector<NamedLinear>& layers);

/// "base_model.model." + module + ".": the prefix of the module's tensors in PEFT's files.
std::string peft_prefix(const std::string& module);

/// Depth of every parameter: 0 before the blocks (embeddings), i + 1 in block i, spec().depth + 1
/// after the blocks (last norm, head).
std::map<std::string, std::int64_t> parameter_depths(Model& model);

/// Whether the module is a delta of a linear layer, a convolution or an embedding.
bool is_delta(const torch::nn::Module& module);

/// The token embedding and its dotted name. Error if the model has none.
std::pair<std::string, std::shared_ptr<Embedding>> token_embedding(Model& model);

/// Whether all trainable parameters belong to deltas or virtual tokens. If so,
/// ForwardContext::base_alone() computes the unchanged base model.
bool trains_only_adapters(Model& model);

/// Name under which a strategy registers its virtual tokens with the model's module.
inline constexpr const char* virtual_tokens_name = "virtual_tokens";

}  // namespace attune::nn
ATTUNE_API_END
