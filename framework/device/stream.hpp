// A stream beside the one that a device computes on, for copies that overlap with the computation.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace attune::device {

/// On the CPU there are no streams: work is done at once, and all else does nothing.
class SideStream {
 public:
  explicit SideStream(c10::Device device);
  /// Runs `work` with this stream as the thread's current one.
  void run(const std::function<void()>& work) const;
  /// What comes on this stream from now on comes after all that the current stream has been given.
  void after_current() const;
  /// The same in two parts, of which the second may come later, on another thread.
  std::shared_ptr<c10::Event> mark_current() const;
  void after(const std::shared_ptr<c10::Event>& mark) const;
  /// What comes on the current stream from now on comes after all that this one has been given.
  void before_current() const;
  /// Waits until the device has done what this stream has been given.
  void wait() const;
  /// The tensors' memory is not used again before what this stream has been given is done.
  void uses(const std::vector<at::Tensor>& tensors) const;

 private:
  std::optional<c10::Stream> stream_;
};

/// What comes on the current stream of the event's device from now on comes after it. Nothing is
/// done for a null event.
void current_after(const std::shared_ptr<c10::Event>& event);

/// The device's own handle of the current stream, for its libraries: a cudaStream_t, for example.
void* native_stream(c10::Device device);

/// Copies of host tensors on `device`, made beside the computation on a stream that this process
/// keeps for that. The current stream's later work comes after them.
std::vector<at::Tensor> upload(const std::vector<at::Tensor>& tensors, c10::Device device);

/// A tensor in pinned memory of the host, for copies from and to a device; not initialised.
at::Tensor pinned_like(const at::Tensor& tensor);
at::Tensor pinned_like(const at::Tensor& tensor, at::ScalarType dtype);

}  // namespace attune::device
