// LibTorch's collectives over MPI, for its own data-parallel machinery.
#pragma once
#include <attune/comm.hpp>
#include <c10/util/intrusive_ptr.h>

namespace c10d {
class ProcessGroup;
}

namespace attune::parallel {

/// A process group for CPU tensors: allreduce (sum, product, min, max; bfloat16 and float16 are reduced as float32), broadcast, allgather,
/// barrier. One thread per group runs the collectives in the order they were asked for, on a communicator of its own, and completes
/// each one's future. An error of MPI's is set on that future. Collective.
c10::intrusive_ptr<c10d::ProcessGroup> make_process_group(const Comm& comm);

}  // namespace attune::parallel
