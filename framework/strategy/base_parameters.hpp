// What strategies train of the base itself, beside what they add to it.
#pragma once
#include <attune/strategy.hpp>

#include <vector>

namespace attune::nn {

/// Parameters that are trained and belong neither to a delta nor to virtual tokens:
/// ForwardContext::base_alone() does not leave out what becomes of them.
std::vector<NamedTensor> trained_base_parameters(Model& model);

}  // namespace attune::nn
