// The groups that the ranks of a run form, by what they are for. Made once, where a run is opened,
// and passed down by value.
#pragma once
#include <attune/api.hpp>
#include <attune/comm.hpp>

ATTUNE_API_BEGIN
namespace attune {

/// In PyTorch's terms a DeviceMesh of two dimensions ("data", "shard"), as in hybrid-sharded data
/// parallelism (HSDP), where they are called ("replicate", "shard"): the ranks of a shard group
/// follow each other, so that they share a node where possible. Four ranks with shards of two:
///
///            shard 0   shard 1
///   data 0   rank 0    rank 1     mesh.shard of ranks 0 and 1
///   data 1   rank 2    rank 3     mesh.shard of ranks 2 and 3
///            mesh.data of ranks 0 and 2, mesh.data of ranks 1 and 3
///
/// A default-constructed mesh is this process alone.
struct Mesh {
  Comm world;  // every rank of the run: files, messages to the user, interruption, errors
  Comm node;   // the ranks on this rank's node: memory, local disks
  // data parallelism: samples are divided over these ranks, and gradients, losses and metrics are
  // summed over them
  Comm data;
  // the ranks that hold one model together, each a part of every tensor; they work on the same
  // samples
  Comm shard;

  /// world = data x shard. Collective. Error when the ranks cannot be divided into shard groups of
  /// that size.
  static Mesh make(const Comm& world, int shard_size = 1);
};

}  // namespace attune
ATTUNE_API_END
