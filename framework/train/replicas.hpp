// Verification that tensors are identical on all ranks.
#pragma once
#include <attune/comm.hpp>
#include <attune/model.hpp>

#include <vector>

namespace attune::train {

/// Fault if the bits of a tensor differ between ranks; it names the first such tensor and the
/// ranks. Collective.
void check_replicas(const std::vector<NamedTensor>& tensors, const Comm& comm);

}  // namespace attune::train
