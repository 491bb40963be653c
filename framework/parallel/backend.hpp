// A c10d process group over MPI and NCCL, for LibTorch's data-parallel classes.
#pragma once
#include <attune/comm.hpp>
#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

namespace c10d {
class ProcessGroup;
}

namespace attune::parallel {

using ProcessGroup = c10::intrusive_ptr<c10d::ProcessGroup>;

/// What moves the tensors of a device: NCCL where every rank has it (parallel/nccl.hpp), or MPI,
/// through pinned memory of the host. MPI never receives device memory. Tensors of the host are
/// MPI's.
enum class Transport { automatic, mpi };

/// Creates a process group for tensors of any length on the CPU and on `device`. It supports
/// allreduce, broadcast, reduce_scatter, allgather and alltoall, c10d's single-tensor forms of
/// these (`_reduce_scatter_base`, `_allgather_base`, `alltoall_base`), and barrier. Over MPI, one
/// thread per group runs the collectives in call order on a communicator of its own and completes
/// their futures. Over NCCL, a stream of the device runs them, and to wait for one means that the
/// current stream waits. Errors are set on the future. Its backend's name is "MPI" or
/// "NCCL 2.30.7", after what moves the tensors of the device.
///
/// Reductions are sum, product, min and max over integers (NCCL: of 8, 32 and 64 bits), float32 and
/// float64; bfloat16 and float16 are reduced as float32. Collectives without a reduction support
/// any dtype. Block sizes of reduce_scatter and allgather may differ between ranks, and those of
/// alltoall between pairs of ranks. The single-tensor forms require equal blocks, except
/// alltoall_base with split sizes. Tensors in lists may be non-contiguous; others must be
/// contiguous. Collective.
///
/// largest: maximum bytes per MPI call, because MPI counts are int.
ProcessGroup make_process_group(const Comm& comm, c10::Device device = c10::kCPU,
                                Transport transport = Transport::automatic,
                                std::size_t largest = 1 << 30);

/// Makes the collectives by which gradients are summed connect the ranks and allocate what they
/// need, before others fill the device. Collective.
void warm_up(c10d::ProcessGroup& group, c10::Device device);

}  // namespace attune::parallel
