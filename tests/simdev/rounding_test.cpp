// Rounding to bfloat16 on simulated devices.
#include "nn/rounding.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <bit>

#include "device.hpp"
#include "memory.hpp"

namespace attune {
namespace {

/// Sizes below, at and above the number of thresholds, and the size of what is rounded at a time.
TEST(Rounding, IsTheHostsOnADevice) {
  simdev::register_devices();
  torch::manual_seed(8);
  for (const std::int64_t size : {0L, 1L, 1000L, 65536L, 65537L, 200000L, (1L << 22) + 70000})
    for (const std::int64_t first : {0L, 1024L * 77}) {
      const auto values = torch::randn({size});
      const auto device = values.to(c10::Device(simdev::sim, 0));
      EXPECT_TRUE(nn::rounded_evenly(device, first).cpu().equal(nn::rounded_evenly(values, first)))
          << size << " from " << first;
      auto rounded = nn::rounded_evenly(values, first);
      if (size > 10) rounded.narrow(0, 5, 3).fill_(0.5);
      const auto followed = values.clone();
      nn::follow_rounded(followed, rounded, first);
      nn::follow_rounded(device, rounded.to(device.device()), first);
      EXPECT_TRUE(device.cpu().equal(followed)) << size << " from " << first;
    }
  const auto nan = torch::full({100}, std::bit_cast<float>(0x7FFFFFFF));
  const auto rounded = nn::rounded_evenly(nan.to(c10::Device(simdev::sim, 0)));
  EXPECT_TRUE(rounded.cpu().isnan().all().item<bool>());
}

}  // namespace
}  // namespace attune
