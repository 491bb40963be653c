// Streams of the simulated devices. A copy that is put on a stream happens as late as it may: when
// somebody waits for it, or when other work on the same stream must come after it. So whoever
// forgets to wait sees old values, always. Operators run at once; whether a real device would have
// run them in an order that matters is noted, and checked (Moment).
#pragma once
#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <cstdint>
#include <functional>
#include <mutex>
#include <utility>

namespace attune::simdev {

/// Of all that is simulated.
std::recursive_mutex& simulation();

c10::Device current_device();
c10::Stream current_stream(c10::Device device);

/// Puts work on a stream.
void later(c10::Stream stream, std::function<void()> work);
/// Does what is on the calling thread's stream of its current device.
void finish_current_stream();
void finish(c10::Stream stream);
/// The same for the host: what it gives to any stream from now on comes after.
void host_waits(c10::Stream stream);

/// When a stream was given a piece of work: streams count theirs.
struct Moment {
  std::pair<c10::DeviceIndex, c10::StreamId> stream;
  std::int64_t number = 0;
};
/// Of the work that the stream is given now.
Moment next_moment(c10::Stream stream);
/// Whether all that `stream` is given from now on comes after that moment: on the same stream, or
/// because an event, or the host, was waited for.
bool comes_after(const Moment& moment, c10::Stream stream);

/// What a stream is called by a library of the device's maker. Null is none.
void* handle_of(c10::Stream stream);
c10::Stream stream_of(void* handle);

/// Makes LibTorch know the devices, under the name "sim".
void register_devices();

}  // namespace attune::simdev
