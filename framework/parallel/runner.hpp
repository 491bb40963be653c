// Where the collectives of a c10d process group run: on a thread of the host, by MPI, or on a
// stream of a device, by the device's own library.
#pragma once
#include <attune/comm.hpp>
#include <c10/util/intrusive_ptr.h>

#include <functional>
#include <memory>
#include <string>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include "parallel/c10d_forms.hpp"

namespace attune::parallel {

using Pending = c10::intrusive_ptr<c10d::Work>;

using OnTensors = std::function<void(const Collectives&, Tensors& outputs, const Tensors& inputs)>;

/// Runs what it is given in order. Errors are set on the work and on its future.
class Runner {
 public:
  virtual ~Runner() = default;
  /// All tensors are on `device`.
  virtual Pending start(c10d::OpType type, c10::Device device, Tensors outputs, Tensors inputs,
                        OnTensors collective) = 0;
};

/// One thread, which waits in MPI. Tensors of a device travel through pinned memory of the host.
/// What is left when it is destroyed is still run. largest: maximum bytes per MPI call. Collective.
std::unique_ptr<Runner> make_host_runner(const Comm& comm, std::size_t largest);

/// A side stream of the device; the host does not wait. The tensors must be of that device.
std::unique_ptr<Runner> make_device_runner(std::unique_ptr<Collectives> collectives,
                                           c10::Device device);

}  // namespace attune::parallel
