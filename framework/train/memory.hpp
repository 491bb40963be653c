// Memory use of a run on one rank, and the number of samples that fit into the rest.
#pragma once
#include <cstdint>
#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "core/out_of_memory.hpp"
#include "train/session.hpp"

namespace attune::parallel {
class ScatterRehearsal;
}

namespace attune::train {

/// Memory by purpose, in bytes on one rank.
struct MemoryPlan {
  std::size_t weights = 0;
  std::size_t shared = 0;          // of the weights: what the ranks of a node hold once
  std::size_t trained_shared = 0;  // of these: what the ranks of a copy do
  std::size_t gradients = 0;
  std::size_t sums = 0;  // partial ones of gradients, with parallel.reproducible
  std::size_t optimizer = 0;
  std::size_t on_host = 0;  // with parallel.offload: the optimizer, and what travels to it
  // host copy from which a checkpoint is written, and the file that is being made of it
  std::size_t staging = 0;
  std::size_t other = 0;  // planned runs: other tensors of strategies and layers
  int shards = 1;         // of the optimizer; it is one of them
  bool shards_gradients = false;

  std::size_t held() const { return weights + gradients + sums + optimizer + staging + other; }
};
MemoryPlan plan_memory(const Session& session);
/// The same for a model prepared by strategies, for a run with one rank.
MemoryPlan plan_memory(Model& model, const Optimizer& optimizer);
/// Bytes of the host from which a rank writes its share of a checkpoint.
std::size_t checkpoint_bytes(const Session& session);
/// Bytes that the ranks of a node hold, of which each holds at most so many.
std::size_t held_on_node(const Session& session, std::size_t most);
/// "weights 513.1 MiB, gradients 18.6 MiB, optimizer 9.3 MiB (one of 4 shards), copy for
/// checkpoints 55.8 MiB, other tensors 1.1 GiB"
std::string describe(const MemoryPlan& plan);

/// Most bytes that a planned run holds at a time. Absent if the memory of a pass is unknown.
std::optional<std::size_t> most_planned(const Session& session);
/// Whether ranks add a gradient as soon as the backward pass has computed it, rather than after the
/// pass: where passes compute it in one piece, and in its parameter's dtype.
bool sums_during_pass(const Session& session);
/// Bytes of gradients that are held between steps, as in an evaluation: the buckets in which ranks
/// add them.
std::size_t gradients_between_steps(const Session& session);
/// How many copies the ranks of a node have a part in, at most.
std::size_t copies_on_node(std::size_t ranks_of_node, std::size_t ranks_of_copy);
/// Bytes of the host that the ranks of a node hold between steps.
struct HostMemory {
  std::size_t rank = 0;     // of a rank that runs alone
  std::size_t shared = 0;   // of it, what the ranks of a node hold once
  std::size_t trained = 0;  // of it, what the ranks of a copy hold once on a node
  std::size_t divided = 0;  // of it, what the ranks of a copy share out
  std::size_t copies = 1;

  /// Of one rank, in a run of so many.
  std::size_t of_rank(std::size_t ranks) const {
    return rank - divided + divided / std::max<std::size_t>(1, ranks / copies);
  }
  /// Of it, what the ranks of a node share.
  std::size_t of_rank_shared(std::size_t ranks) const {
    return ranks / copies > 1 ? shared + trained : shared;
  }
  /// Of the ranks of a node.
  std::size_t of_node(std::size_t ranks_of_node, std::size_t ranks) const {
    const auto here = copies_on_node(ranks_of_node, std::max<std::size_t>(1, ranks / copies));
    return shared + here * trained + ranks_of_node * (of_rank(ranks) - shared - trained);
  }
};
/// For a planned session.
HostMemory host_memory(const Session& session);
/// Bytes that the optimizer's state takes while strategies begin: the host gives it memory only
/// when it is written to.
std::size_t early_optimizer(const Session& session, const MemoryPlan& plan);

/// Bytes that a forward and backward pass over the longest training samples needs in addition to
/// the gradients. For planned sessions; absent if a model or strategy needs tensor values.
std::optional<std::size_t> planned_activations(const Session& session);

/// Whether whole gradients are there when a pass begins: of the step's earlier micro-batches, or in
/// the buckets in which ranks add them.
bool holds_gradients(const Session& session);
/// For one pass of a run that shares out gradients, made before it: while it lives, gradients are
/// given up as in training. Null for other runs.
std::shared_ptr<parallel::ScatterRehearsal> rehearse_scatter(const Session& session);

/// Rows, longest sample first.
std::vector<std::int64_t> longest_first(const Split& split);
/// Of the training split.
std::vector<std::int64_t> longest_first(const Session& session);

/// Result of one trial forward and backward pass. drop_gradients() discards its gradients.
struct Rehearsal {
  std::size_t resident =
      0;  // bytes held by this process, or by its tensors on a device, before the pass
  // peak of additional bytes: gradients (if held, from the beginning), activations and kernel
  // workspace
  std::size_t took = 0;
  double seconds = 0;
};
/// Most bytes that this process, or its tensors on a device, held during `work`.
std::size_t most_held(const Session& session, const std::function<void()>& work);
/// Runs a trial pass over these training rows. Not collective. Propagates all exceptions of the
/// pass, including out of memory.
Rehearsal rehearse(Session& session, std::span<const std::int64_t> rows);
/// Makes the gradients undefined, so that the next backward pass stores its results without a copy.
void drop_gradients(const std::vector<NamedTensor>& parameters);

/// Memory in bytes that this rank may still allocate: its share of the node's free memory, or of
/// the control group's if that is less.
std::size_t available_memory(const Comm& node);

/// Implements train.micro_batch = "auto": the largest power of two of samples whose forward and
/// backward pass fits, at most a rank's share of the step. Tries increasing numbers of the longest
/// samples while the next is expected to fit into 80 % of the available memory. Same result on
/// every rank. Error if not even one sample fits. Collective; leaves no gradients.
std::int64_t find_micro_batch(Session& session);

[[noreturn]] void tell_out_of_memory(const Session& session, std::int64_t micro_batch,
                                     std::int64_t step);

/// Runs the work of a step (counted from 0). If memory runs out, throws an Error that states this
/// rank's memory use and which options to lower.
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
