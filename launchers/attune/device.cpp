#include "device.hpp"

#include "device/device.hpp"
#include "slurm/launch.hpp"

namespace attune::program {

void refuse_idle_gpus(const config::RunConfig& run, const Comm& comm) {
  slurm::check_gpus(run, device::count() > 0 && run.parallel.device != "cpu", comm);
}

}  // namespace attune::program
