// The ranks over which gradients are summed, and how they share out what training holds.
#pragma once
#include <attune/comm.hpp>

#include "parallel/backend.hpp"

namespace attune::parallel {

/// Ranks, and the collectives among them.
struct RankGroup {
  RankGroup();  // this process alone
  RankGroup(Comm ranks, ProcessGroup among_them);
  ~RankGroup();
  RankGroup(const RankGroup&);
  RankGroup(RankGroup&&) noexcept;
  RankGroup& operator=(const RankGroup&);
  RankGroup& operator=(RankGroup&&) noexcept;

  Comm comm;
  ProcessGroup collectives;  // null: a group of one rank may need none
};

/// What the ranks of a shard group hold together, each its part. The others are whole on every
/// rank. Each includes those before it. Stages 1 and 2 of ZeRO (Rajbhandari et al. 2020,
/// arXiv:1910.02054); weights are shared by the ranks of a node, which hold them once
/// (NodeParameters).
enum class Sharded { nothing, optimizer, gradients, weights };

/// The data-parallel group as a table: `shards` are consecutive ranks, which hold one copy of what
/// is sharded; `copies` have the same place in their shard groups, and hold the same. Example: four
/// ranks in two copies.
///
///            shard 0   shard 1
///   copy 0   rank 0    rank 1     shards of ranks 0 and 1
///   copy 1   rank 2    rank 3     shards of ranks 2 and 3
///            copies of ranks 0 and 2, copies of ranks 1 and 3
struct Sharing {
  Sharded what = Sharded::nothing;
  RankGroup data;
  RankGroup shards;
  RankGroup copies;

  /// Every rank holds everything.
  static Sharing nothing(const RankGroup& data);
  /// number_of_copies: divides the ranks of `data`. reproducible: gradients are added along a tree
  /// over all of them (GradientTree); the other sums do not need the collectives of `data` where it
  /// is sharded in copies, and then there are none. Collective.
  static Sharing make(const Comm& data, Sharded what, int number_of_copies, bool reproducible,
                      c10::Device device, Transport transport);

  /// Whether several ranks hold what is sharded.
  bool is_sharded() const { return shards.comm.size() > 1; }
  /// Whether this rank's shards are those that a checkpoint keeps.
  bool is_first_copy() const { return copies.comm.rank() == 0; }
};

}  // namespace attune::parallel
