// The simulated devices themselves: they compute what the CPU computes, and punish what a GPU
// would.
#include <ATen/DeviceAccelerator.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "counters.hpp"
#include "device.hpp"
#include "memory.hpp"

namespace attune::simdev {
namespace {

class Simulated : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    static const bool once = (register_devices(), true);
    static_cast<void>(once);
  }
  void SetUp() override { before_ = counted().waited(); }
  std::int64_t waits() const { return counted().waited() - before_; }

  const at::Device device_{sim, 1};

 private:
  std::int64_t before_ = 0;
};

at::Tensor pinned(const at::Tensor& values) {
  at::Tensor memory = at::empty(values.sizes(), values.options().pinned_memory(true));
  return memory.copy_(values);
}

TEST_F(Simulated, AreKnownByName) {
  EXPECT_EQ(at::accelerator::deviceCount(), 4);
  EXPECT_EQ(c10::Device("sim:1"), device_);
  EXPECT_EQ(device_.str(), "sim:1");
}

/// The loss after some steps of AdamW.
double train_on(at::Device device) {
  torch::manual_seed(7);
  const auto parameter = [&](at::IntArrayRef sizes) {
    return torch::randn(sizes).mul(0.1).to(device).requires_grad_();
  };
  const std::vector<at::Tensor> p{parameter({32, 16}), parameter({32}), parameter({4, 32}),
                                  parameter({4})};
  torch::optim::AdamW optimizer(p, torch::optim::AdamWOptions(1e-2));
  const at::Tensor x = torch::randn({8, 16}).to(device);
  const at::Tensor targets = torch::randint(4, {8}).to(device);
  double last = 0;
  for (int step = 0; step < 5; ++step) {
    optimizer.zero_grad();
    const at::Tensor hidden = at::dropout(at::gelu(at::linear(x, p[0], p[1])), 0.1, true);
    const at::Tensor loss = at::cross_entropy_loss(at::linear(hidden, p[2], p[3]), targets);
    loss.backward();
    optimizer.step();
    last = loss.item<double>();
  }
  return last;
}

TEST_F(Simulated, TrainToTheCpusLoss) { EXPECT_EQ(train_on(device_), train_on(at::kCPU)); }

TEST_F(Simulated, ComputeWhatTheCpuComputes) {
  const at::Tensor q = torch::randn({1, 2, 8, 16});
  const auto attend = [](const at::Tensor& x) {
    return at::scaled_dot_product_attention(x, x, x, {}, 0, true);
  };
  EXPECT_TRUE(attend(q).allclose(attend(q.to(device_)).cpu())) << "by other operators";
  const at::Tensor x = torch::randn({5, 7});
  const std::vector<std::function<at::Tensor(const at::Tensor&)>> functions{
      [](const at::Tensor& t) { return t.t().contiguous(); },
      [](const at::Tensor& t) {
        return t.narrow(1, 2, 3).index_select(0, at::arange(2, t.options().dtype(at::kLong)));
      },
      [](const at::Tensor& t) { return std::get<0>(at::cat({t, t}).sort(1)); },
      [](const at::Tensor& t) { return t.masked_fill(t > 0, 0).cumsum(0); },
      [](const at::Tensor& t) { return t.index({t > 0}); },
      [](const at::Tensor& t) { return at::nonzero(t > 0); },
      [](const at::Tensor& t) { return t.to(at::kBFloat16).matmul(t.to(at::kBFloat16).t()); },
      [](const at::Tensor& t) { return at::linalg_vector_norm(t, 2); },
      [](const at::Tensor& t) { return t.clone().index_put_({t < 0}, at::zeros({}, t.options())); },
      [](const at::Tensor& t) { return t.unfold(1, 3, 2).sum(2); },
      [](const at::Tensor& t) { return at::repeat_interleave(t, 2, 0); },
  };
  for (std::size_t i = 0; i < functions.size(); ++i)
    EXPECT_TRUE(functions[i](x).equal(functions[i](x.to(device_)).cpu())) << "function " << i;
}

TEST_F(Simulated, HostsCannotReadTheirMemory) {
  const at::Tensor x = torch::ones({4}).to(device_);
  EXPECT_DEATH(
      {
        const volatile float first = *x.const_data_ptr<float>();
        static_cast<void>(first);
      },
      "");
}

TEST_F(Simulated, RefuseTensorsOfAnother) {
  const at::Tensor here = torch::ones({4}).to(device_);
  EXPECT_ANY_THROW(here + torch::ones({4}));
  EXPECT_ANY_THROW(here + torch::ones({4}).to(c10::Device(sim, 0)));
  const at::Tensor x = torch::ones({3, 3}).to(device_);
  EXPECT_ANY_THROW(at::mm(x, torch::ones({3, 3})));
  EXPECT_ANY_THROW(x.index_select(0, torch::arange(2)));
  EXPECT_ANY_THROW(at::embedding(x, torch::arange(2)));
  const at::Tensor picture = torch::ones({1, 3, 4, 4}).to(device_);
  EXPECT_ANY_THROW(at::conv2d(picture, torch::ones({2, 3, 1, 1})));
}

TEST_F(Simulated, WaitWhereAGpuDoes) {
  const at::Tensor x = torch::ones({4}).to(device_);
  EXPECT_EQ(waits(), 1) << "a copy from memory that is not pinned";
  const at::Tensor y = x * 2 + 1;
  EXPECT_EQ(waits(), 1) << "arithmetic";
  EXPECT_EQ(y.sum().item<float>(), 12);
  EXPECT_EQ(waits(), 2) << "a value";
  at::nonzero(y);
  EXPECT_EQ(waits(), 3) << "a size that depends on values";
  y.to(device_, at::kDouble);
  at::zeros({3}, y.options()).fill_(7);
  EXPECT_EQ(waits(), 3) << "what stays on the device";
}

TEST_F(Simulated, CopyLate) {
  const at::Tensor source = pinned(torch::ones({4}));
  const at::Tensor x = at::empty({4}, at::TensorOptions().device(device_));
  x.copy_(source, /*non_blocking=*/true);
  source.fill_(5);
  EXPECT_EQ(x.sum().item<float>(), 20) << "whoever reuses the memory too early spoils the copy";

  const at::Tensor target = pinned(torch::zeros({4}));
  target.copy_(x, /*non_blocking=*/true);
  x.fill_(6);  // comes after the copy on the same stream
  EXPECT_EQ(target.sum().item<float>(), 20);
  target.copy_(x, /*non_blocking=*/true);
  EXPECT_EQ(target.sum().item<float>(), 20) << "nobody has waited yet";
  at::accelerator::synchronizeDevice(device_.index());
  EXPECT_EQ(target.sum().item<float>(), 24);
}

TEST_F(Simulated, OrderStreamsByEvents) {
  const c10::impl::VirtualGuardImpl guard(sim);
  const auto side = guard.getStreamFromGlobalPool(device_);
  const auto main = guard.getStream(device_);
  const auto wait_for = [](c10::Stream first, c10::Stream later) {
    c10::Event event(sim);
    event.record(first);
    event.block(later);
  };
  const at::Tensor x = torch::ones({4}).to(device_);
  const at::Tensor source = pinned(torch::full({4}, 2));
  const auto copy_aside = [&] {
    const c10::StreamGuard on(side);
    x.copy_(source, /*non_blocking=*/true);
  };
  x.fill_(1);
  EXPECT_DEATH(copy_aside(), "uses memory that stream 0 of device 1 may still write");
  wait_for(main, side);
  copy_aside();
  EXPECT_DEATH(x.sum(), "uses memory that stream . of device 1 may still write");
  wait_for(side, main);
  EXPECT_EQ(x.sum().item<float>(), 8);
}

TEST_F(Simulated, OrderStreamsByWaitsOfTheHost) {
  const c10::impl::VirtualGuardImpl guard(sim);
  const auto side = guard.getStreamFromGlobalPool(device_);
  const at::Tensor x = torch::ones({4}).to(device_);
  guard.synchronizeStream(guard.getStream(device_));
  const at::Tensor y = [&] {
    const c10::StreamGuard on(side);
    return x * 2;
  }();
  EXPECT_DEATH(x.fill_(3), "writes memory that stream . of device 1 may still read");
  guard.synchronizeStream(side);
  x.fill_(3);
  EXPECT_EQ(y.sum().item<float>(), 8);
}

TEST_F(Simulated, EndWhereMemoryIsFreedTooEarly) {
  const c10::impl::VirtualGuardImpl guard(sim);
  const auto side = guard.getStreamFromGlobalPool(device_);
  const auto use_aside = [&](bool records) {
    const at::Tensor x = torch::ones({4}).to(device_);
    guard.synchronizeStream(guard.getStream(device_));
    const c10::StreamGuard on(side);
    x.sum();
    if (records) at::Tensor(x).record_stream(side);
  };
  use_aside(/*records=*/true);
  EXPECT_DEATH(use_aside(/*records=*/false), "is freed that stream . of device 1 still uses");
}

TEST_F(Simulated, HaveALimit) {
  at::accelerator::resetPeakStats(device_.index());
  const auto free = [&] { return at::accelerator::getMemoryInfo(device_.index()).first; };
  const auto before = free();
  {
    const at::Tensor x = at::empty({1 << 20}, at::TensorOptions().device(device_));
    EXPECT_EQ(before - free(), std::size_t{4} << 20);
  }
  EXPECT_EQ(free(), before);
  const auto stats = at::accelerator::getDeviceStats(device_.index());
  EXPECT_GE(stats.allocated_bytes[0].peak, std::int64_t{4} << 20);
  EXPECT_THROW(at::empty({std::int64_t{1} << 40}, at::TensorOptions().device(device_)),
               c10::OutOfMemoryError);
}

}  // namespace
}  // namespace attune::simdev
