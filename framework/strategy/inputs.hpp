// Whether a batch holds what a model takes.
#pragma once
#include <attune/model.hpp>

namespace attune {

/// Error for data without tokens where the model reads them, and for text where it takes pictures.
void check_inputs(const Model& model, const Batch& batch);

}  // namespace attune
