#include <attune/error.hpp>
#include <attune/mesh.hpp>

namespace attune {

Mesh Mesh::make(const Comm& world, int shard_size) {
  if (shard_size < 1 || world.size() % shard_size != 0)
    fail(
        "{} ranks cannot be divided into shard groups of {}: start a multiple of {} ranks, or "
        "choose a shard size that divides {}",
        world.size(), shard_size, shard_size, world.size());
  const int column = world.rank() % shard_size;
  const int row = world.rank() / shard_size;
  return {world, world.split_by_node(), world.split(column), world.split(row)};
}

}  // namespace attune
