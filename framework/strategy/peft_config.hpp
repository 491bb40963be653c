// adapter_config.json as PEFT means it: which modules it adapts and with which scale, and which of
// its keys Attune honours, ignores or refuses.
#pragma once
#include <attune/strategy.hpp>
#include <nlohmann/json.hpp>

#include <optional>
#include <string>

namespace attune {

/// What PEFT makes of a LoRA configuration for one module: the first pattern that matches the whole
/// name, or its end after a dot, counts.
struct LoraScale {
  std::int64_t rank = 0;
  double scale = 0;  // of B A
  bool operator==(const LoraScale&) const = default;
};
LoraScale lora_scale(const nlohmann::ordered_json& config, const std::string& module);

/// Whether PEFT adapts a linear layer of this name: target_modules, exclude_modules,
/// layers_to_transform, layers_pattern, modules_to_save.
bool peft_adapts(const nlohmann::ordered_json& config, const std::string& module);

/// Error when an adapter read from the folder `from` would be something else in this run than in
/// PEFT; `ours` is the run's own in the same form. The message names the key.
void check_peft_config(const Adapter& ours, const Adapter& theirs, const std::string& from);

}  // namespace attune
