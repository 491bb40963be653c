// Check that a batch has the inputs a model needs.
#pragma once
#include <attune/model.hpp>

namespace attune {

/// Error if the model reads tokens and the batch has none, or if it takes images and the batch has
/// text.
void check_inputs(const Model& model, const Batch& batch);

}  // namespace attune
