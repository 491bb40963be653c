// A c10d process group on MPI, for LibTorch's data-parallel classes.
#pragma once
#include <attune/comm.hpp>
#include <c10/util/intrusive_ptr.h>

namespace c10d {
class ProcessGroup;
}

namespace attune::parallel {

/// Creates a process group for tensors of any length on the CPU or on an accelerator, whose tensors
/// travel through pinned memory of the host. It supports allreduce, broadcast,
/// reduce_scatter, allgather and alltoall, c10d's single-tensor forms of these
/// (`_reduce_scatter_base`, `_allgather_base`, `alltoall_base`), and barrier. One thread per group
/// runs the collectives in call order on a communicator of its own and completes their futures;
/// errors are set on the future.
///
/// Reductions are sum, product, min and max over integers, float32 and float64; bfloat16 and
/// float16 are reduced as float32. Collectives without a reduction support any dtype. Block sizes
/// of reduce_scatter and allgather may differ between ranks, and those of alltoall between pairs of
/// ranks. The single-tensor forms require equal blocks, except alltoall_base with split sizes.
/// Tensors in lists may be non-contiguous; others must be contiguous. Collective.
///
/// largest: maximum bytes per MPI call, because MPI counts are int.
c10::intrusive_ptr<c10d::ProcessGroup> make_process_group(const Comm& comm,
                                                          std::size_t largest = 1 << 30);

}  // namespace attune::parallel
