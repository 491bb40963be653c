#include "nn/activations.hpp"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/torch.h>

#include <algorithm>

#include "parallel/wide_gradients.hpp"

namespace attune::nn {
namespace {

/// What tensors on the meta device would take. It allocates nothing, as LibTorch's own allocator
/// there, and reports to the meter as the host's allocator does.
class MetaAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    auto* size = new std::int64_t(static_cast<std::int64_t>(bytes));
    report(*size);
    return {nullptr, size, &forget, c10::kMeta};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void*, const void*, std::size_t) const override {}

  /// From its first use on for as long as the program runs.
  static void install() {
    static MetaAllocator allocator;
    static const bool is_installed = [] {
      c10::SetAllocator(c10::kMeta, &allocator, 1);
      return true;
    }();
    (void)is_installed;
  }

 private:
  static void report(std::int64_t change) {
    auto* meter = static_cast<c10::MemoryReportingInfoBase*>(
        c10::ThreadLocalDebugInfo::get(c10::DebugInfoKind::PROFILER_STATE));
    if (meter) meter->reportMemoryUsage(nullptr, change, 0, 0, c10::kMeta);
  }
  static void forget(void* size) {
    report(-*static_cast<std::int64_t*>(size));
    delete static_cast<std::int64_t*>(size);
  }
};

std::size_t bytes_of(std::int64_t count) {
  return static_cast<std::size_t>(std::max<std::int64_t>(0, count));
}

}  // namespace

/// LibTorch's allocator tells it of every tensor of this thread.
struct TensorMeter::Count final : c10::MemoryReportingInfoBase {
  void reportMemoryUsage(void*, std::int64_t size, std::size_t, std::size_t,
                         c10::Device device) override {
    const bool is_counted = device.is_cpu() ? !HostUncounted::is_on() : device.is_meta();
    if (!is_counted) return;
    live += size;
    peak = std::max(peak, live);
    allocated += std::max<std::int64_t>(0, size);
  }
  bool memoryProfilingEnabled() const override { return true; }
  std::int64_t live = 0;
  std::int64_t peak = 0;
  std::int64_t allocated = 0;
};

struct TensorMeter::Guard {
  explicit Guard(std::shared_ptr<Count> count)
      : guard(c10::DebugInfoKind::PROFILER_STATE, std::move(count)) {}
  c10::DebugInfoGuard guard;
};

TensorMeter::TensorMeter() : count_(std::make_shared<Count>()) {
  MetaAllocator::install();
  guard_ = std::make_unique<Guard>(count_);
}

TensorMeter::~TensorMeter() = default;

std::int64_t TensorMeter::live() const { return count_->live; }

std::int64_t TensorMeter::peak() const { return count_->peak; }

std::int64_t TensorMeter::allocated() const { return count_->allocated; }

void hold_gradients(Model& model) {
  for (auto& parameter : model.module().parameters())
    if (parameter.requires_grad() && !parameter.grad().defined())
      parameter.mutable_grad() = parallel::zero_gradient(parameter);
}

PassMemory pass_memory(Model& model, const std::function<at::Tensor()>& loss, Gradients before) {
  const TensorMeter meter;
  PassMemory memory;
  if (before == Gradients::held) hold_gradients(model);
  const auto held = meter.live();
  {
    const at::Tensor sum = loss();
    memory.kept = bytes_of(meter.live() - held);
    sum.backward();
  }
  memory.most = bytes_of(meter.peak());
  for (auto& parameter : model.module().parameters()) parameter.mutable_grad() = at::Tensor();
  return memory;
}

std::size_t activation_bytes(Model& model, const ForwardContext& context) {
  const TensorMeter meter;
  const at::Tensor features = model.features(context);
  return bytes_of(meter.live());
}

}  // namespace attune::nn
