#include "device.hpp"

#include "device/device.hpp"
#include "slurm/launch.hpp"

namespace attune::program {

int usable_gpus() { return device::count(); }

void refuse_idle_gpus(const config::RunConfig& run, const Comm& comm) {
  slurm::check_gpus(run, usable_gpus() > 0 && run.parallel.device != "cpu", comm);
}

}  // namespace attune::program
