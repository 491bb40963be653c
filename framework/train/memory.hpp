// What a run holds in memory on one rank, and how many samples fit beside it.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "core/out_of_memory.hpp"
#include "train/session.hpp"

namespace attune::train {

/// Bytes on one rank.
struct MemoryPlan {
  std::size_t weights = 0;
  std::size_t gradients = 0;
  std::size_t optimizer = 0;
  std::size_t staging = 0;  // the copy that a checkpoint is written from
  std::size_t other = 0;    // of a planned run: what strategies and layers keep besides

  std::size_t held() const { return weights + gradients + optimizer + staging + other; }
};
MemoryPlan plan_memory(const Session& session);
/// Of a model that strategies have prepared, on one rank of one.
MemoryPlan plan_memory(Model& model, const Optimizer& optimizer);
/// "weights 513.1 MiB, gradients 18.6 MiB, optimizer 37.2 MiB, copy for checkpoints 55.8 MiB, other
/// tensors 1.1 GiB"
std::string describe(const MemoryPlan& plan);

/// Bytes that a forward and backward pass over the longest training samples takes beside the
/// gradients. Of a planned session; absent where a model or strategy asks for values.
std::optional<std::size_t> planned_activations(const Session& session);

/// Rows of the training split, longest sample first.
std::vector<std::int64_t> longest_first(const Session& session);

/// One forward and backward pass, whose gradients drop_gradients() throws away.
struct Rehearsal {
  std::size_t resident = 0;  // bytes this process held before it
  // and at most besides: activations, gradients and what the kernels need; 0 on a GPU
  std::size_t took = 0;
  double seconds = 0;
};
/// Over these rows of the training split. Not collective. Throws what the pass throws, also when
/// memory runs out.
Rehearsal rehearse(Session& session, std::span<const std::int64_t> rows);
/// They are undefined then, and what the next backward pass computes becomes them as it is.
void drop_gradients(const std::vector<NamedTensor>& parameters);

/// Memory this rank may still take: of the node, or of its control group where that is less, shared
/// among the node's ranks.
std::size_t available_memory(const Comm& node);

/// train.micro_batch = "auto": the largest power of two of samples, at most a rank's share of the
/// step, whose forward and backward pass fits. Passes over the longest samples are made for growing
/// numbers, as long as the next is expected to fit into four fifths of what is available. The same
/// on every rank. Error when not even one sample fits. Collective; leaves no gradients.
std::int64_t find_micro_batch(Session& session);

[[noreturn]] void tell_out_of_memory(const Session& session, std::int64_t micro_batch,
                                     std::int64_t step);

/// Runs the work of a step (from 0); when memory runs out, an Error says what this rank holds and
/// what to lower.
template <class Work>
std::invoke_result_t<Work> with_memory_told(const Session& session, std::int64_t micro_batch,
                                            std::int64_t step, Work work) {
  try {
    return work();
  } catch (const std::exception& error) {
    if (!is_out_of_memory(error)) throw;
    tell_out_of_memory(session, micro_batch, step);
  }
}

}  // namespace attune::train
