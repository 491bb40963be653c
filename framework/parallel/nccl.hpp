// Collectives of devices by NCCL, by RCCL, or by what a plugin declares for its devices, which have
// the same functions (https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/api.html). The
// library is opened at run time: building Attune needs no header of it.
#pragma once
#include <c10/core/Device.h>

#include <memory>
#include <string>

#include "parallel/collectives.hpp"

namespace attune::parallel {

/// "NCCL 2.30.7"; empty where no such library serves devices of this kind.
std::string nccl_version(c10::DeviceType type);

/// For tensors on `device`; null if a rank has no library for it, or if the group is this process
/// alone. Calls put their work on the current stream, and the host goes on. The ranks find each
/// other by an identifier that MPI carries. Error with NCCL's own words if they cannot connect.
/// NCCL is never aborted: a communicator ends when all of its work is done. Collective.
std::unique_ptr<Collectives> make_nccl(const Comm& comm, c10::Device device);

}  // namespace attune::parallel
