// Tensors that every rank must have alike.
#pragma once
#include <attune/comm.hpp>
#include <attune/model.hpp>

#include <vector>

namespace attune::train {

/// Fault naming the first tensor whose bits differ between ranks, and the ranks. Collective.
void check_replicas(const std::vector<NamedTensor>& tensors, const Comm& comm);

}  // namespace attune::train
