// What a run holds in memory on one rank, and how many samples fit beside it.
#pragma once
#include <functional>
#include <string>

#include "train/session.hpp"

namespace attune::train {

/// Bytes on one rank.
struct MemoryPlan {
  std::size_t weights = 0, gradients = 0, optimizer = 0, staging = 0;  // staging: the copy that a checkpoint is written from
};
MemoryPlan plan_memory(const Session& session);
/// "weights 513.1 MiB, gradients 18.6 MiB, ..., and the activations of 4 samples"
std::string describe(const MemoryPlan& plan, std::int64_t micro_batch);

/// Memory this rank may still take: of the node, or of its control group where that is less, shared among the node's ranks.
std::size_t available_memory(const Comm& comm);

/// The largest power of two of samples that one forward and backward pass holds, at most `most`. try_samples(n) makes a pass over the n
/// longest samples; it is made for growing n as long as the next is expected to fit into four fifths of what is available. The same on every
/// rank. Error when not even one sample fits. Collective.
std::int64_t find_micro_batch(const Session& session, std::int64_t most, const std::function<void(std::int64_t)>& try_samples);

/// Whether the exception says that memory ran out, on the host or on the GPU.
bool is_out_of_memory(const std::exception& error);

}  // namespace attune::train
