// Streams of the simulated devices. What is put on a stream happens as late as it may: when
// somebody waits for it, or when other work on the same stream must come after it. So whoever
// forgets to wait sees old values, always.
#pragma once
#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <functional>

namespace attune::simdev {

c10::Device current_device();
c10::Stream current_stream(c10::Device device);

/// Puts work on a stream.
void later(c10::Stream stream, std::function<void()> work);
/// Does what is on the calling thread's stream of its current device.
void finish_current_stream();
void finish(c10::Stream stream);

/// Makes LibTorch know the devices, under the name "sim".
void register_devices();

}  // namespace attune::simdev
