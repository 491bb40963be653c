// The groups of ranks in a run, by purpose. They are created once, when a run is opened, and passed
// by value.
#pragma once
#include <attune/api.hpp>
#include <attune/comm.hpp>

ATTUNE_API_BEGIN
namespace attune {

/// Corresponds to a PyTorch DeviceMesh with the two dimensions ("data", "shard"); hybrid-sharded
/// data parallelism (HSDP) calls them ("replicate", "shard"). The ranks of a shard group are
/// consecutive, so that they share a node where possible. Example: four ranks, shards of two:
///
///            shard 0   shard 1
///   data 0   rank 0    rank 1     mesh.shard of ranks 0 and 1
///   data 1   rank 2    rank 3     mesh.shard of ranks 2 and 3
///            mesh.data of ranks 0 and 2, mesh.data of ranks 1 and 3
///
/// A default-constructed mesh contains this process only.
struct Mesh {
  Comm world;  // all ranks of the run: files, user messages, interruption, errors
  Comm node;   // ranks on this rank's node: memory, local disks
  // data-parallel group: samples are distributed over these ranks; gradients, losses and metrics
  // are summed over them
  Comm data;
  // shard group: the ranks hold one model together, each with a part of every tensor, and process
  // the same samples
  Comm shard;

  /// Divides the world into data x shard. Collective. Error if the ranks cannot be divided into
  /// shard groups of `shard_size`.
  static Mesh make(const Comm& world, int shard_size = 1);
};

}  // namespace attune
ATTUNE_API_END
