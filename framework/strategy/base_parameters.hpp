// Parameters of the base model that strategies train directly.
#pragma once
#include <attune/strategy.hpp>

#include <vector>

namespace attune::nn {

/// Trainable parameters that belong neither to a delta nor to virtual tokens. Their changes also
/// affect ForwardContext::base_alone().
std::vector<NamedTensor> trained_base_parameters(Model& model);

}  // namespace attune::nn
