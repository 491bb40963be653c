#include "device.hpp"

#include <ATen/Context.h>

#include "slurm/launch.hpp"

namespace attune::program {

void refuse_idle_gpus(const config::RunConfig& run, const Comm& comm) {
  const bool finds_gpu = at::globalContext().hasCUDA() && at::detail::getCUDAHooks().deviceCount() > 0;
  slurm::check_gpus(run, finds_gpu && run.parallel.device != "cpu", comm);
}

}  // namespace attune::program
