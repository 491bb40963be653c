// What a model's licence allows, and whether a run accepts it.
#pragma once
#include <string>
#include <vector>

#include "weights/model_files.hpp"

namespace attune {

/// In one line what the licence asks of those who use the weights; "" for one that is not known
/// here. The names are Hugging Face's (https://huggingface.co/docs/hub/repositories-licenses),
/// whatever their case. It replaces no reading of the licence.
std::string usage_terms(const std::string& licence);

/// Error when `allowed` (model.allowed_licences) is not empty and does not hold the model's
/// licence, or the model states none.
void check_licence(const ModelFiles& files, const std::vector<std::string>& allowed);

}  // namespace attune
