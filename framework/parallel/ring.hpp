// Sums by messages between neighbours in a ring of ranks (Patarasuk and Yuan 2009,
// doi:10.1016/j.jpdc.2008.09.002): as few bytes as can be, and little memory, where MPI's own may
// copy all of their input first.
#pragma once
#include <attune/comm.hpp>
#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace attune::parallel {

/// How elements are reduced.
struct Reduced {
  MPI_Datatype type;
  MPI_Op op;
  std::int64_t bytes;  // of an element
};

/// Bytes of a message at most. A sum needs memory for four of them.
inline constexpr std::int64_t ring_segment = 1 << 20;

/// Whether a ring is faster than MPI's trees, which send fewer messages, for so many bytes.
bool ring_pays(std::int64_t bytes, int ranks);

/// input: a block for each rank, one behind another, of these sizes in elements. output: the
/// reduction of this rank's blocks. No other thread may use `comm`. Collective.
void ring_reduce_scatter(const Comm& comm, const Reduced& what, std::byte* output,
                         const std::byte* input, const std::vector<std::int64_t>& sizes,
                         std::int64_t segment = ring_segment);
/// In place.
void ring_all_reduce(const Comm& comm, const Reduced& what, std::byte* data, std::int64_t count,
                     std::int64_t segment = ring_segment);

}  // namespace attune::parallel
