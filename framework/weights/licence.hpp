// Licence terms of a model, and whether a run accepts them.
#pragma once
#include <string>
#include <vector>

#include "weights/model_files.hpp"

namespace attune {

/// One-line summary of the licence's terms of use; "" for an unknown licence. Names are Hugging
/// Face's (https://huggingface.co/docs/hub/repositories-licenses), in any case. Not a substitute
/// for reading the licence.
std::string usage_terms(const std::string& licence);

/// Error if `allowed` (model.allowed_licences) is not empty and does not contain the model's
/// licence, or if the model states none.
void check_licence(const ModelFiles& files, const std::vector<std::string>& allowed);

}  // namespace attune
