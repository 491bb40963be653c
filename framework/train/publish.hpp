// Export of results in Hugging Face's layout: an adapter folder or a whole model.
#pragma once
#include <cstdint>
#include <filesystem>

#include "train/session.hpp"
#include "weights/export_folder.hpp"

namespace attune::train {

/// Writes the strategy's adapter in PEFT's layout (adapter_config.json, adapter_model.safetensors).
/// If there is no adapter, or if `merge`, writes the whole model with tokenizer and config instead.
/// The folder is written atomically by rank 0, one tensor at a time. Error if the target exists and
/// is not empty. Merging changes the session's model on rank 0. largest_file: of a whole model's
/// weights, in bytes. Collective.
void publish(Session& session, const std::filesystem::path& folder, bool merge,
             std::uint64_t largest_file = largest_weight_file);

/// Checks before the first step that publish() will be possible with this model, tokenizer and
/// these strategies; Error otherwise. Rank 0 alone may call it.
void check_publishable(const Session& session);

/// Name of the result in the run directory: "adapter" or "model".
std::string result_name(Session& session);

}  // namespace attune::train
