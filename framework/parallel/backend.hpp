// LibTorch's collectives over MPI, for its own data-parallel machinery.
#pragma once
#include <attune/comm.hpp>
#include <c10/util/intrusive_ptr.h>

namespace c10d {
class ProcessGroup;
}

namespace attune::parallel {

/// A process group for CPU tensors of any length: allreduce, broadcast, reduce_scatter, allgather,
/// alltoall, each also in c10d's form for one tensor (`_reduce_scatter_base`, `_allgather_base`,
/// `alltoall_base`), and barrier. One thread per group runs the collectives in the order they were
/// asked for, on a communicator of its own, and completes each one's future. An error is set on
/// that future.
///
/// Reductions are sum, product, min and max over integers, float32 and float64; bfloat16 and
/// float16 are reduced as float32. What is only moved may have any dtype. The blocks of
/// reduce_scatter and allgather may differ in size between ranks, and those of alltoall between all
/// pairs; the forms for one tensor want equal ones, but for alltoall_base with split sizes. Tensors
/// of lists need not be contiguous, those of the other forms must be. Collective.
///
/// largest: bytes that one call of MPI may move; its counts are int.
c10::intrusive_ptr<c10d::ProcessGroup> make_process_group(const Comm& comm,
                                                          std::size_t largest = 1 << 30);

}  // namespace attune::parallel
