#include "device.hpp"

#include <ATen/Context.h>

#include "slurm/launch.hpp"

namespace attune::program {

int usable_gpus() {
  return at::globalContext().hasCUDA() ? static_cast<int>(at::detail::getCUDAHooks().deviceCount())
                                       : 0;
}

void refuse_idle_gpus(const config::RunConfig& run, const Comm& comm) {
  slurm::check_gpus(run, usable_gpus() > 0 && run.parallel.device != config::DeviceChoice::cpu,
                    comm);
}

}  // namespace attune::program
