#include "nn/activations.hpp"

#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/torch.h>

#include <algorithm>

namespace attune::nn {
namespace {

/// LibTorch's allocator tells it of every tensor of this thread.
struct LiveBytes final : c10::MemoryReportingInfoBase {
  void reportMemoryUsage(void*, std::int64_t size, std::size_t, std::size_t, c10::Device device) override {
    if (device.is_cpu()) bytes += size;
  }
  bool memoryProfilingEnabled() const override { return true; }
  std::int64_t bytes = 0;
};

}  // namespace

std::size_t activation_bytes(Model& model, const Batch& batch) {
  const auto live = std::make_shared<LiveBytes>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, live);
  const at::Tensor features = model.features(batch);
  return static_cast<std::size_t>(std::max<std::int64_t>(0, live->bytes));
}

std::size_t estimate_activations(Model& model, std::int64_t samples, std::int64_t length, const std::function<Batch(std::int64_t, std::int64_t)>& make_batch) {
  const auto bytes = [&](std::int64_t count, std::int64_t tokens) { return static_cast<double>(activation_bytes(model, make_batch(count, tokens))); };
  if (model.spec().vocabulary == 0) {
    const double one = bytes(1, 1), two = bytes(2, 1);
    return static_cast<std::size_t>(one + (two - one) * static_cast<double>(samples - 1));
  }
  // Lengths a, 2a and 3a give the polynomial through them (Newton's form).
  const auto a = std::min<std::int64_t>(8, std::max<std::int64_t>(1, model.spec().context / 4)), tried = std::min<std::int64_t>(samples, 2);
  const double y1 = bytes(tried, a), y2 = bytes(tried, 2 * a), y3 = bytes(tried, 3 * a), x = static_cast<double>(length) / static_cast<double>(a);
  const double at_length = y1 + (y2 - y1) * (x - 1) + (y3 - 2 * y2 + y1) / 2 * (x - 1) * (x - 2), fixed = 3 * y1 - 3 * y2 + y3;
  return static_cast<std::size_t>(std::max(0.0, fixed + (at_length - fixed) * static_cast<double>(samples) / static_cast<double>(tried)));
}

}  // namespace attune::nn
