#pragma once
#include <string>

#include "weights/model_files.hpp"

namespace attune {

/// What `attune inspect` prints: architecture and sizes, parameters by how they are stored, tokenizer, chat template, licence, files.
std::string describe_model(const ModelFiles& files);

}  // namespace attune
