// Interpretation of adapter_config.json as in PEFT: adapted modules, their scales, and the keys
// that Attune honours, ignores or refuses.
#pragma once
#include <attune/strategy.hpp>
#include <nlohmann/json.hpp>

#include <optional>
#include <string>

namespace attune {

/// LoRA rank and scale of one module according to PEFT. The first pattern that matches the whole
/// module name, or a suffix after a dot, applies.
struct LoraScale {
  std::int64_t rank = 0;
  double scale = 0;  // of B A
  bool operator==(const LoraScale&) const = default;
};
LoraScale lora_scale(const nlohmann::ordered_json& config, const std::string& module);

/// Whether PEFT adapts a linear layer of this name, according to target_modules, exclude_modules,
/// layers_to_transform, layers_pattern and modules_to_save.
bool peft_adapts(const nlohmann::ordered_json& config, const std::string& module);

/// Error if the adapter `theirs`, read from folder `from`, would behave differently in this run
/// than in PEFT. `ours`: the run's own adapter. The message names the key.
void check_peft_config(const Adapter& ours, const Adapter& theirs, const std::string& from);

}  // namespace attune
