#pragma once
#include <attune/registry.hpp>

#include <string>

#include "weights/model_files.hpp"

namespace attune {

/// Error listing the known types when the model is of another: a model plugin bears the name of the
/// model_type that it runs.
void check_architecture(const ModelFiles& files, const Registry& registry);

/// What `attune inspect` prints: architecture and sizes, parameters by how they are stored,
/// tokenizer, chat template, licence and its terms, files.
std::string describe_model(const ModelFiles& files);

}  // namespace attune
