// framework/device on simulated devices.
#include "device/device.hpp"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <attune/batch.hpp>
#include <torch/torch.h>

#include <cmath>

#include "counters.hpp"
#include "device.hpp"
#include "device/driver.hpp"
#include "device/readings.hpp"
#include "device/stream.hpp"
#include "memory.hpp"
#include "placement/devices.hpp"

namespace attune {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

class Devices : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    simdev::register_devices();
    identify_devices(simdev::sim, [](c10::DeviceIndex device) {
      return DeviceIdentity{fmt::format("SIM-{}", simdev::physical(device)), "Simulated"};
    });
  }
  void SetUp() override { before_ = simdev::counted().waited(); }
  std::int64_t waits() const { return simdev::counted().waited() - before_; }

  const c10::Device sim_{simdev::sim, 1};
  const c10::Device cpu_ = c10::kCPU;

 private:
  std::int64_t before_ = 0;
};

TEST_F(Devices, AreFoundByKind) {
  EXPECT_EQ(device::accelerator(), simdev::sim);
  EXPECT_EQ(device::count(), 4);
  EXPECT_EQ(device::name(simdev::sim), "sim");
  EXPECT_EQ(device::name(c10::kCUDA), "cuda");
  EXPECT_THAT(device::kinds(), Contains("sim"));
  EXPECT_THAT(device::kinds(), Contains("cuda"));
  EXPECT_EQ(device::identity(sim_).uuid, "SIM-1");
}

TEST_F(Devices, AreNamedAsTheDriverDoes) {
  const unsigned char bytes[16] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
                                   0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
  EXPECT_EQ(device::uuid_text(bytes), "GPU-01234567-89ab-cdef-0123-456789abcdef");
  EXPECT_EQ(device::identity(cpu_).uuid, "");
}

TEST_F(Devices, TellTheirMemory) {
  device::reset_peak(sim_);
  const auto before = device::memory(sim_);
  {
    const at::Tensor x = at::empty({1 << 20}, at::TensorOptions().device(sim_));
    EXPECT_EQ(device::memory(sim_).allocated, before.allocated + (4 << 20));
    EXPECT_EQ(device::memory(sim_).free, before.free - (4 << 20));
  }
  EXPECT_EQ(device::memory(sim_).allocated, before.allocated);
  EXPECT_EQ(device::memory(sim_).peak, before.allocated + (4 << 20));
  device::reset_peak(sim_);
  EXPECT_EQ(device::memory(sim_).peak, before.allocated);
}

TEST_F(Devices, TellWhatTheyServe) {
  EXPECT_TRUE(device::capabilities(sim_).bfloat16);
  EXPECT_TRUE(device::capabilities(sim_).flash_attention);
  EXPECT_TRUE(device::has_operator(sim_, "aten::_fused_rms_norm"));
  EXPECT_FALSE(device::has_operator(cpu_, "aten::_fused_rms_norm"));
  EXPECT_FALSE(device::capabilities(cpu_).flash_attention);
  EXPECT_GT(device::multiply_rate(sim_), 0);
}

TEST_F(Devices, GetTensorsWithoutAWait) {
  at::Tensor given = torch::ones({4});
  const at::Tensor x = on_device(given, sim_);
  given.fill_(7);
  given = at::Tensor();
  EXPECT_EQ(waits(), 0);
  EXPECT_EQ(x.device(), sim_);
  EXPECT_EQ(x.sum().item<float>(), 4) << "what was given may change at once";
  EXPECT_TRUE(on_device(x, sim_).is_same(x));
  EXPECT_FALSE(on_device(at::Tensor(), sim_).defined());
  EXPECT_TRUE(on_device(torch::ones({2}), c10::kMeta).is_meta());
  const at::Tensor on_cpu = torch::ones({2});
  EXPECT_TRUE(on_device(on_cpu, cpu_).is_same(on_cpu));
}

TEST_F(Devices, GetValuesThatAreDrawnOnTheHost) {
  const auto drawn = [](c10::Device device) {
    torch::manual_seed(5);
    return drawn_on_host(at::empty({4, 3}, at::TensorOptions().device(device)),
                         [](at::Tensor& values) { values.normal_(); });
  };
  EXPECT_EQ(drawn(sim_).device(), sim_);
  EXPECT_TRUE(drawn(sim_).cpu().equal(drawn(cpu_)));
  EXPECT_TRUE(drawn(c10::kMeta).is_meta());
}

TEST_F(Devices, AreReadFromOnce) {
  device::Readings readings;
  const at::Tensor x = on_device(torch::tensor({1.5, 2.5}), sim_);
  const auto first = readings.add(x);
  const auto second = readings.add(torch::tensor(std::int64_t{1} << 53));
  const auto third = readings.add(x.sum().to(at::kFloat));
  x.fill_(0);
  EXPECT_EQ(waits(), 0);
  readings.read();
  EXPECT_EQ(waits(), 1);
  EXPECT_EQ(readings[first], 1.5);
  EXPECT_EQ(readings[first + 1], 2.5);
  EXPECT_EQ(readings[second], std::pow(2, 53));
  EXPECT_EQ(readings[third], 4);
}

TEST_F(Devices, KeepTheHostsCopyOfABatch) {
  Batch batch = pack({torch::arange(3, at::kInt), torch::arange(2, at::kInt)});
  const at::Tensor tokens = batch.tokens;
  batch.tokens = batch.put(tokens, sim_);
  EXPECT_TRUE(batch.on_host(batch.tokens).is_same(tokens));
  EXPECT_EQ(waits(), 0);
  const at::Tensor other = batch.tokens + 1;
  EXPECT_TRUE(batch.on_host(other).equal(tokens + 1)) << "of another it is asked for";
  EXPECT_EQ(waits(), 1);
}

TEST_F(Devices, GetBatchesBesideTheComputation) {
  const std::vector<at::Tensor> batch{torch::ones({4}), at::Tensor(), torch::arange(3),
                                      torch::ones({2, 3}).t(), at::empty({0})};
  const auto moved = device::upload(batch, sim_);
  EXPECT_EQ(waits(), 0);
  ASSERT_EQ(moved.size(), batch.size());
  EXPECT_FALSE(moved[1].defined());
  for (const auto i : {0, 2, 3, 4}) {
    EXPECT_EQ(moved[i].device(), sim_);
    EXPECT_TRUE(moved[i].cpu().equal(batch[i])) << i;
  }
  EXPECT_TRUE(device::upload(batch, cpu_)[0].is_same(batch[0]));
}

TEST_F(Devices, OrderTheirStreams) {
  const device::SideStream side(sim_);
  const at::Tensor x = on_device(torch::ones({4}), sim_);
  const at::Tensor home = device::pinned_like(x).zero_();
  side.after_current();
  side.run([&] { home.copy_(x, /*non_blocking=*/true); });
  EXPECT_EQ(home.sum().item<float>(), 0) << "the copy is still to come";
  side.wait();
  EXPECT_EQ(home.sum().item<float>(), 4);

  const device::SideStream none(cpu_);
  int done = 0;
  none.run([&] { ++done; });
  none.after_current();
  none.before_current();
  none.wait();
  EXPECT_EQ(done, 1);
}

// ---- Which rank has which

std::vector<placement::Seat> seats(const std::vector<std::pair<std::string, std::string>>& given) {
  std::vector<placement::Seat> all;
  for (const auto& [host, uuid] : given) all.push_back({host, "cuda", 0, 1, uuid, "NVIDIA A100"});
  return all;
}

TEST(Seats, TravelAsText) {
  const placement::Seat seat{"n1", "cuda", 3, 4, "GPU-1", "NVIDIA H200"};
  const auto again = placement::Seat::parse(seat.text());
  EXPECT_EQ(again.text(), seat.text());
  EXPECT_EQ(again.device(), "cuda:3");
}

TEST(Seats, AreForOneRankEach) {
  EXPECT_EQ(objection(seats({{"n1", "GPU-1"}, {"n1", "GPU-2"}, {"n2", "GPU-3"}})), "");
  EXPECT_EQ(objection(seats({{"n1", ""}, {"n2", ""}})), "") << "of two hosts";
  EXPECT_EQ(objection(seats({{"n1", ""}, {"n1", ""}})), "") << "each may have its own";
  EXPECT_THAT(objection(seats({{"n1", "GPU-1"}, {"n1", "GPU-2"}, {"n1", "GPU-1"}})),
              HasSubstr("ranks 0 and 2 on n1 would share one device (cuda:0, GPU-1)"));
  auto seen = seats({{"n1", ""}, {"n1", ""}});
  for (auto& seat : seen) seat.visible = 2;
  EXPECT_THAT(objection(seen), HasSubstr("ranks 0 and 1 on n1 would share one device (cuda:0)"));
}

TEST(Seats, AreOfOneKind) {
  auto mixed = seats({{"n1", "GPU-1"}, {"n2", ""}});
  mixed[1] = {"n2", "cpu", 0, 0, "", ""};
  EXPECT_THAT(objection(mixed),
              HasSubstr("rank 0 on n1 finds cuda:0, but rank 1 on n2 finds no accelerator"));
  mixed[0] = {"n1", "cpu", 0, 0, "", ""};
  EXPECT_EQ(objection(mixed), "") << "any number of ranks share the CPUs";
}

TEST(Seats, OfDifferentModelsNameTheSlowest) {
  auto mixed = seats({{"n1", "GPU-1"}, {"n1", "GPU-2"}, {"n2", "GPU-3"}});
  EXPECT_FALSE(differ(mixed));
  mixed[2].model = "Tesla V100";
  EXPECT_TRUE(differ(mixed));
  EXPECT_THAT(
      difference(mixed, {100, 110, 50}),
      HasSubstr("(2 x NVIDIA A100, 1 x Tesla V100): rank 2 on n2 (Tesla V100) is the slowest"));
}

}  // namespace
}  // namespace attune
