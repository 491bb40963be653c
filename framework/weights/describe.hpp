#pragma once
#include <attune/registry.hpp>

#include <string>

#include "weights/model_files.hpp"

namespace attune {

/// Error if no plugin supports the model's model_type; it lists the supported types. A model plugin
/// has the name of its model_type.
void check_architecture(const ModelFiles& files, const Registry& registry);

/// Output of `attune inspect`: architecture and sizes, parameters by storage type, tokenizer, chat
/// template, licence and its terms, files.
std::string describe_model(const ModelFiles& files);

}  // namespace attune
