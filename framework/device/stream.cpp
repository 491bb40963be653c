#include "device/stream.hpp"

#include <attune/device.hpp>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/torch.h>

#include <map>
#include <mutex>

namespace attune::device {
namespace {

c10::impl::VirtualGuardImpl guard_of(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type());
}

c10::Stream current_stream(c10::Device device) { return guard_of(device).getStream(device); }

const SideStream& stream_of_uploads(c10::Device device) {
  static std::mutex mutex;
  static auto& streams = *new std::map<c10::DeviceIndex, SideStream>;  // outlives LibTorch's
  const std::lock_guard lock(mutex);
  return streams.try_emplace(device.index(), device).first->second;
}

}  // namespace

SideStream::SideStream(c10::Device device) {
  if (!device.is_cpu()) stream_ = guard_of(device).getStreamFromGlobalPool(device);
}

void SideStream::run(const std::function<void()>& work) const {
  if (!stream_) return work();
  const c10::StreamGuard current(*stream_);
  work();
}

void SideStream::after_current() const { after(mark_current()); }

std::shared_ptr<c10::Event> SideStream::mark_current() const {
  if (!stream_) return nullptr;
  auto mark = std::make_shared<c10::Event>(stream_->device_type());
  mark->record(current_stream(stream_->device()));
  return mark;
}

void SideStream::after(const std::shared_ptr<c10::Event>& mark) const {
  if (mark) mark->block(*stream_);
}

void SideStream::before_current() const {
  if (!stream_) return;
  c10::Event mark(stream_->device_type());
  mark.record(*stream_);
  mark.block(current_stream(stream_->device()));
}

void SideStream::wait() const {
  if (stream_) guard_of(stream_->device()).synchronizeStream(*stream_);
}

void SideStream::uses(const std::vector<at::Tensor>& tensors) const {
  if (!stream_) return;
  for (const auto& tensor : tensors)
    if (tensor.defined()) tensor.record_stream(*stream_);
}

void current_after(const std::shared_ptr<c10::Event>& event) {
  if (event) event->block(current_stream(event->device()));
}

void* native_stream(c10::Device device) { return current_stream(device).native_handle(); }

std::vector<at::Tensor> upload(const std::vector<at::Tensor>& tensors, c10::Device device) {
  if (device.is_cpu()) return tensors;
  std::vector<at::Tensor> copies;
  const auto& side = stream_of_uploads(device);
  side.run([&] {
    for (const auto& tensor : tensors) copies.push_back(on_device(tensor, device));
  });
  side.before_current();
  // Their memory belongs to the side stream: it is not used again before the current one is done.
  for (auto& copy : copies)
    if (copy.defined()) copy.record_stream(current_stream(device));
  return copies;
}

at::Tensor pinned_like(const at::Tensor& tensor) {
  return pinned_like(tensor, tensor.scalar_type());
}

at::Tensor pinned_like(const at::Tensor& tensor, at::ScalarType dtype) {
  return at::empty(tensor.sizes(),
                   at::TensorOptions().dtype(dtype).pinned_memory(!tensor.is_cpu()));
}

}  // namespace attune::device
