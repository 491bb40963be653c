// What people use: an adapter folder, or a whole model, in the layout of Hugging Face.
#pragma once
#include <filesystem>

#include "train/session.hpp"

namespace attune::train {

/// The strategy's adapter in PEFT's layout (adapter_config.json, adapter_model.safetensors) or,
/// when it has none or `merge`, the whole model with tokenizer and config. The folder appears whole
/// or not at all. Rank 0 writes, one tensor at a time. Error when the target is there and not
/// empty. Merging changes the session's model on rank 0. Collective.
void publish(Session& session, const std::filesystem::path& folder, bool merge);

/// Before the first step: what publish will need of model, tokenizer and strategies. Error where
/// the run's result could not be made. Rank 0 alone may call it.
void check_publishable(const Session& session);

/// The name under which a run directory holds its result: "adapter" or "model".
std::string result_name(Session& session);

}  // namespace attune::train
